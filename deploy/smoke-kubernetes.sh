#!/bin/sh
# Installs the chart, provisions, backs up, restores, moves, upgrades and uninstalls, in a cluster
# that is there (kind, k3d), in namespaces of its own. Needs kubectl, helm, and both images where the
# cluster finds them:
#   docker build -f deploy/Dockerfile --target tenantry -t tenantry:0.1.0 .
#   docker build -f deploy/Dockerfile --target pooler -t tenantry-pooler:0.1.0 .
#   kind load docker-image tenantry:0.1.0 tenantry-pooler:0.1.0
#   deploy/smoke-kubernetes.sh         KEEP=1 leaves everything there
#                                      CNPG=1 has a server made by the operator CloudNativePG, too
set -eu
umask 077
cd -- "$(dirname -- "$0")/.."

release=smoke
space=tenantry-smoke
clusters=tenantry-smoke-servers
image="${IMAGE:-tenantry:0.1.0}"
work=$(mktemp -d)
in_space() { kubectl --namespace "$space" "$@"; }
in_api() { in_space exec "deploy/$release-api" --container api -- "$@"; }
with_token() { in_api env TENANTRY_URL=http://127.0.0.1:8000 TENANTRY_TOKEN_FILE=/tmp/admin.token "$@"; }
tenantry() { with_token tenantry "$@"; }
say() { printf 'smoke: %s\n' "$*" >&2; }

finish() {
  status=$?
  if [ "$status" != 0 ]; then
    say "failed; all pods and the last lines of their logs follow"
    in_space get pods --output wide >&2 || :
    in_space logs --selector app.kubernetes.io/name=tenantry --all-containers --prefix --tail 40 >&2 || :
  fi
  rm -rf "$work"
  if [ -z "${KEEP:-}" ]; then
    helm uninstall "$release" --namespace "$space" --ignore-not-found --wait >&2 || :
    kubectl delete namespace "$space" "$clusters" --ignore-not-found >&2 || :
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A file of $work into the API's pod, which another pod replaces at each upgrade.
put() {
  in_space exec --stdin "deploy/$release-api" --container api -- sh -c "umask 077; cat >/tmp/$1" <"$work/$1"
}

# Name, image, port and two further lines of its container: a Deployment and its Service.
program() {
  sed "s|@name|$1|; s|@image|$2|; s|@port|$3|" <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: @name}
spec:
  selector: {app: @name}
  ports: [{port: @port}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: @name}
spec:
  selector: {matchLabels: {app: @name}}
  template:
    metadata: {labels: {app: @name}}
    spec:
      automountServiceAccountToken: false
      volumes: [{name: made, secret: {secretName: made-@name}}]
      containers:
        - name: program
          image: @image
          volumeMounts: [{name: made, mountPath: /run/made, readOnly: true}]
          readinessProbe: {tcpSocket: {port: @port}, periodSeconds: 2}
YAML
  printf '          %s\n' "$4" "$5"
}

# Name, image, and what makes it a server for tenants.
postgres() {
  login='{name: POSTGRES_USER, value: tenantry_admin}, {name: POSTGRES_PASSWORD_FILE, value: /run/made/admin.password}'
  made='{name: POSTGRES_INITDB_ARGS, value: --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8}'
  logs='-clog_statement=none, -clog_parameter_max_length=0, -clog_parameter_max_length_on_error=0'
  program "$1" "$2" 5432 "env: [$login, $made]" "args: [postgres, -cmax_connections=400, $logs${3:-}]"
}

say "making secrets"
for name in catalog-admin pg-a pg-b catalog redis console store-access store-secret; do
  head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/$name"
done
printf 'requirepass %s\n' "$(cat "$work/redis")" >"$work/valkey.conf"
printf '"%s,%s"' "$(cat "$work/store-access")" "$(cat "$work/store-secret")" >"$work/auth-key"
printf '{"access_key": "%s", "secret_key": "%s"}\n' "$(cat "$work/store-access")" "$(cat "$work/store-secret")" >"$work/store.json"
kubectl create namespace "$space"
kubectl create namespace "$clusters"
in_space create secret generic made-catalog --from-file="admin.password=$work/catalog-admin"
in_space create secret generic made-pg-a --from-file="admin.password=$work/pg-a"
in_space create secret generic made-pg-b --from-file="admin.password=$work/pg-b"
in_space create secret generic made-redis --from-file="valkey.conf=$work/valkey.conf"
in_space create secret generic made-store --from-file="auth-key=$work/auth-key"
in_space create secret generic made-first --from-file="catalog-admin=$work/catalog-admin" \
  --from-file="catalog.password=$work/catalog" --from-file="redis.password=$work/redis" --from-file="store.json=$work/store.json"

say "starting the servers of others"
tenants=', -cwal_level=logical, -cmax_wal_senders=20, -cmax_replication_slots=20'
tenants="$tenants, -cmax_logical_replication_workers=10, -cmax_worker_processes=20"
tenants="$tenants, -cmax_slot_wal_keep_size=4GB, -cautovacuum_naptime=10min"
postgres catalog postgres:18 | in_space apply --filename -
postgres pg-a postgres:17 "$tenants" | in_space apply --filename -
postgres pg-b postgres:18 "$tenants" | in_space apply --filename -
program redis valkey/valkey:9 6379 "args: [valkey-server, /run/made/valkey.conf, --maxmemory-policy, noeviction]" "env: []" |
  in_space apply --filename -
# shellcheck disable=SC2016 # its own shell reads the key
program store rclone/rclone:1.75 9000 "command: [/bin/sh, -ec]" \
  'args: ["mkdir -p /data/tenantry; export RCLONE_AUTH_KEY=\"$(cat /run/made/auth-key)\";
                  exec rclone serve s3 --addr 0.0.0.0:9000 --etag-hash= --no-checksum --ignore-checksum /data"]' |
  in_space apply --filename -
in_space wait --for=condition=Available deployment --all --timeout=10m

say "the catalog's role and the root key"
trusted=$(in_space get service pg-a --output 'jsonpath={.spec.clusterIP}')/32,$(
  in_space get service pg-b --output 'jsonpath={.spec.clusterIP}'
)/32
cnpg='{enabled: false}'
[ -z "${CNPG:-}" ] || cnpg="{enabled: true, namespace: $clusters, storageGb: 1}"
cat >"$work/values.yaml" <<YAML
image: {application: ${image%:*}, pooler: ${POOLER_IMAGE:-tenantry-pooler}, tag: "${image##*:}"}
settings:
  TENANTRY_CATALOG_DSN: postgresql://tenantry@catalog:5432/tenantry
  TENANTRY_REDIS_URL: redis://redis:6379/0
  TENANTRY_SERVER_NETWORKS: $trusted
  TENANTRY_BACKUP_STORE: s3://tenantry/backups
  TENANTRY_KEYSTORE: s3://tenantry/keys
  TENANTRY_S3_ENDPOINT: http://store:9000
networkPolicy: {enabled: true, egressPorts: [5432, 6379, 443, 9000]}
api: {replicas: 1}
providers: {cnpg: $cnpg}
YAML
in_space apply --filename - <<YAML
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  securityContext: {fsGroup: 10001}
  volumes: [{name: made, secret: {secretName: made-first, defaultMode: 0440}}]
  containers:
    - name: first
      image: $image
      command: [sleep, "3600"]
      env:
        - {name: TENANTRY_CATALOG_DSN, value: "postgresql://tenantry@catalog:5432/tenantry"}
        - {name: TENANTRY_CATALOG_PASSWORD_FILE, value: /run/made/catalog.password}
        - {name: TENANTRY_REDIS_URL, value: "redis://redis:6379/0"}
        - {name: TENANTRY_REDIS_PASSWORD_FILE, value: /run/made/redis.password}
      volumeMounts: [{name: made, mountPath: /run/made, readOnly: true}]
YAML
in_space wait --for=condition=Ready pod/first --timeout=5m
in_space exec first -- tenantry-run prepare --host catalog --admin tenantry_admin --admin-password-file /run/made/catalog-admin
in_space exec first -- cat /var/lib/tenantry/keys/root.keys >"$work/root.keys"
in_space delete pod first --grace-period=1

say "installing the chart"
in_space create secret generic tenantry --from-file="catalog.password=$work/catalog" --from-file="redis.password=$work/redis" \
  --from-file="root.keys=$work/root.keys" --from-file="store.json=$work/store.json"
in_space create secret generic tenantry-pooler --from-file="catalog.password=$work/catalog" --from-file="console.password=$work/console"
helm install "$release" deploy/helm/tenantry --namespace "$space" --values "$work/values.yaml" --wait --timeout 10m
helm test "$release" --namespace "$space"
in_api tenantry admin create-key --name first --role security_admin --role operator --role sales_ops --role auditor --role app >"$work/admin.token"
put admin.token
for name in pg-a pg-b; do
  put "$name"
  with_token "TENANTRY_SERVER_PASSWORD_FILE=/tmp/$name" \
    tenantry servers add "$name" --host "$name" --user tenantry_admin --wait
done

say "the doctor's word"
tenantry doctor
say "provisioning"
tenantry tenants create smoke-clinic --name 'Smoke Clinic' --server pg-a --wait
tenantry psql smoke-clinic -- -c 'SELECT current_database(), current_user'
say "backing up, and proving it"
tenantry backup smoke-clinic --wait
tenantry restore smoke-clinic --in-place --yes --wait
say "moving from Postgres 17 to 18"
tenantry move smoke-clinic --to pg-b --wait
tenantry psql smoke-clinic -- -c 'SELECT version()'
if [ -n "${CNPG:-}" ]; then
  say "a server of CloudNativePG, made and deleted"
  in_space exec "deploy/$release-worker-control" --container worker -- tenantry admin doctor
  tenantry servers create pg-made --provider cnpg --wait
  tenantry servers delete pg-made --wait
fi
say "an upgrade, which replaces every pod"
helm upgrade "$release" deploy/helm/tenantry --namespace "$space" --values "$work/values.yaml" \
  --set settings.TENANTRY_USAGE_SECONDS=30 --wait --timeout 10m
in_space rollout status "deploy/$release-api" --timeout=5m
put admin.token
tenantry psql smoke-clinic -- -c 'SELECT 1'
tenantry doctor
say "catalog against reality"
tenantry check
say "uninstalling"
helm uninstall "$release" --namespace "$space" --wait
say "everything works"
