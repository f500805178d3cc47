{{/* What workers and API are told of providers (docs/providers.md), and see of them. */}}
{{- define "tenantry.providerSettings" -}}
{{- with .Values.providers.cnpg }}
{{- if .enabled }}
- {name: TENANTRY_CNPG_NAMESPACE, value: {{ .namespace | quote }}}
- {name: TENANTRY_CNPG_STORAGE_GB, value: {{ .storageGb | quote }}}
{{- with .storageClass }}
- {name: TENANTRY_CNPG_STORAGE_CLASS, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.providers.rds }}
{{- if .enabled }}
- {name: TENANTRY_RDS_REGION, value: {{ .region | quote }}}
- {name: TENANTRY_RDS_CA_PATH, value: /etc/tenantry/rds/ca.pem}
{{- with .endpoint }}
- {name: TENANTRY_RDS_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .subnetGroup }}
- {name: TENANTRY_RDS_SUBNET_GROUP, value: {{ . | quote }}}
{{- end }}
{{- with .securityGroups }}
- {name: TENANTRY_RDS_SECURITY_GROUPS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The port of the endpoint that speaks like RDS. */}}
{{- define "tenantry.endpointPort" -}}
{{- $url := urlParse .endpoint }}
{{- $usual := eq $url.scheme "http" | ternary "80" "443" }}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default $usual }}
{{- end }}

{{- define "tenantry.providerMounts" -}}
{{- if .Values.providers.cnpg.enabled }}
- {name: kubernetes, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}
{{- if .Values.providers.rds.enabled }}
- {name: authorities, mountPath: /etc/tenantry/rds, readOnly: true}
{{- end }}
{{- end }}

{{/* The token is for the one container that asks, and for an hour: the kubelet renews it. */}}
{{- define "tenantry.providerVolumes" -}}
{{- if .Values.providers.cnpg.enabled }}
- name: kubernetes
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
{{- end }}
{{- with .Values.providers.rds }}
{{- if .enabled }}
- name: authorities
  configMap:
    name: {{ .authorities }}
    items:
      - {key: ca.pem, path: ca.pem}
{{- end }}
{{- end }}
{{- end }}
