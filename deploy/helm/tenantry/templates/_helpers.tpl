{{- define "tenantry.labels" -}}
app.kubernetes.io/name: tenantry
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "tenantry.selector" -}}
app.kubernetes.io/name: tenantry
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tenantry.name" -}}
{{ printf "%s-%s" .root.Release.Name .component | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tenantry.image" -}}
{{ .repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Whether servers can be made to order; nothing: no. */}}
{{- define "tenantry.providing" -}}
{{- if or .Values.providers.cnpg.enabled .Values.providers.rds.enabled }}yes{{ end }}
{{- end }}

{{/* Who has to do with providers (.asks) is known to them by an account of its own. */}}
{{- define "tenantry.account" -}}
{{- if and .asks (include "tenantry.providing" .root) }}
{{- printf "%s-%s" .root.Release.Name .asks }}
{{- else }}
{{- .root.Release.Name }}
{{- end }}
{{- end }}

{{/* What every pod of ours has: no rights, no token, a spread over machines. */}}
{{- define "tenantry.pod" -}}
serviceAccountName: {{ include "tenantry.account" . }}
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "tenantry.selector" . | nindent 8 }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tenantry.container" -}}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/*
Files that only their owner may read: a mounted Secret is a link, and its group reads it. They are
not in /run/secrets: tokens of accounts are mounted below it, which has to be possible.
*/}}
{{- define "tenantry.secretFiles" -}}
- name: secrets
  image: {{ include "tenantry.image" (dict "root" .root "repository" .repository) }}
  command: [/bin/sh, -ec]
  args:
    - |
      cd /mounted
      for file in *; do install -m 0400 "$file" "/etc/tenantry/secrets/$file"; done
  {{- include "tenantry.container" . | nindent 2 }}
  volumeMounts:
    - {name: mounted, mountPath: /mounted, readOnly: true}
    - {name: secrets, mountPath: /etc/tenantry/secrets}
{{- end }}

{{/* What API, workers, beat and the one-shot are told and see. */}}
{{- define "tenantry.application" -}}
image: {{ include "tenantry.image" (dict "root" .root "repository" .root.Values.image.application) }}
{{- include "tenantry.container" . | nindent 0 }}
env:
  {{- range $name, $value := .root.Values.settings }}
  - {name: {{ $name }}, value: {{ $value | toString | quote }}}
  {{- end }}
  - {name: TENANTRY_CATALOG_PASSWORD_FILE, value: /etc/tenantry/secrets/catalog.password}
  - {name: TENANTRY_REDIS_PASSWORD_FILE, value: /etc/tenantry/secrets/redis.password}
  - {name: TENANTRY_KEYRING_FILE, value: /etc/tenantry/secrets/root.keys}
  {{- if .root.Values.secrets.storeCredentials }}
  - {name: TENANTRY_S3_CREDENTIALS_FILE, value: /etc/tenantry/secrets/store.json}
  {{- end }}
  {{- if .asks }}
  {{- include "tenantry.providerSettings" .root | nindent 2 }}
  {{- end }}
volumeMounts:
  {{- if .asks }}
  {{- include "tenantry.providerMounts" .root | nindent 2 }}
  {{- end }}
  - {name: secrets, mountPath: /etc/tenantry/secrets, readOnly: true}
  - {name: spool, mountPath: /var/lib/tenantry/spool}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tenantry.applicationVolumes" -}}
- name: mounted
  secret: {secretName: {{ .root.Values.secrets.application }}}
- name: secrets
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: spool
  emptyDir: {sizeLimit: {{ .spool }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if .asks }}
{{- include "tenantry.providerVolumes" .root | nindent 0 }}
{{- end }}
{{- end }}

{{/* The health check is the one that the image knows; a pulse needs a while to begin. */}}
{{- define "tenantry.health" -}}
startupProbe:
  exec: {command: [tenantry-run, health, {{ . }}]}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 24
livenessProbe:
  exec: {command: [tenantry-run, health, {{ . }}]}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 3
{{- end }}

{{- define "tenantry.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "tenantry.name" . }}
  labels: {{- include "tenantry.labels" . | nindent 4 }}
spec:
  # Never "at least one": of a single pod that would stop every machine from being drained.
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "tenantry.selector" . | nindent 6 }}
{{- end }}
