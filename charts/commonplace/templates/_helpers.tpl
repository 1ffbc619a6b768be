{{- define "commonplace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What all names begin with: 46 characters leave room for "-operator-metrics" within the 63 of a DNS label. */}}
{{- define "commonplace.fullname" -}}
{{- $name := include "commonplace.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- $full | trunc 46 | trimSuffix "-" -}}
{{- end -}}

{{- define "commonplace.operator" -}}
{{ include "commonplace.fullname" . }}-operator
{{- end -}}

{{/* Names of cluster-wide objects carry the namespace: releases of one name in two namespaces do not collide. */}}
{{- define "commonplace.clusterName" -}}
{{ include "commonplace.operator" . }}:{{ .Release.Namespace }}
{{- end -}}

{{- define "commonplace.serviceAccount" -}}
{{- default (include "commonplace.operator" .) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Stable for ever: a Deployment's selector cannot be changed. */}}
{{- define "commonplace.selector" -}}
app.kubernetes.io/name: {{ include "commonplace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "commonplace.labelsOf" -}}
{{- $ := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "commonplace.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
app.kubernetes.io/part-of: commonplace
{{- end -}}

{{- define "commonplace.labels" -}}
{{ include "commonplace.labelsOf" (list . "operator") }}
{{- end -}}

{{- define "commonplace.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "commonplace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "commonplace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* COMMONPLACE_OPERATOR_<NAME> of each setting, by its value's path. */}}
{{- define "commonplace.env" -}}
{{- $settings := dict
  "HOST" .Values.settings.host
  "PORT" "8780"
  "RUNTIME_IMAGE" .Values.runtimeImage.repository
  "OPERATOR_CLASS" .Values.operatorClass
  "WATCH_NAMESPACES" (join "," .Values.watchNamespaces)
  "LEADER_ELECTION" .Values.leaderElection.enabled
  "LEASE_DURATION_SECONDS" .Values.leaderElection.leaseDurationSeconds
  "RENEW_DEADLINE_SECONDS" .Values.leaderElection.renewDeadlineSeconds
  "LEASE_RETRY_SECONDS" .Values.leaderElection.retrySeconds
  "LOG_LEVEL" .Values.log.level
  "LOG_FORMAT" .Values.log.format
  "WORKERS" .Values.settings.workers
  "CLUSTER_TIMEOUT_SECONDS" .Values.settings.clusterTimeoutSeconds
  "DATABASE_CONNECT_TIMEOUT_SECONDS" .Values.settings.databaseConnectTimeoutSeconds
  "DATABASE_STATEMENT_TIMEOUT_SECONDS" .Values.settings.databaseStatementTimeoutSeconds
  "QUOTA_REFRESH_SECONDS" .Values.settings.quotaRefreshSeconds
  "RESYNC_SECONDS" .Values.settings.resyncSeconds
  "SCALING_SECONDS" .Values.settings.scalingSeconds
  "SCALING_WORKERS" .Values.settings.scalingWorkers
  "SHUTDOWN_SECONDS" .Values.settings.shutdownSeconds
-}}
{{- range $name, $value := $settings }}
- name: COMMONPLACE_OPERATOR_{{ $name }}
  value: {{ toString $value | quote }}
{{- end }}
- name: COMMONPLACE_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef:
      # The server's default, spelled out: fieldRef is owned as a whole, and another applier would find it changed.
      apiVersion: v1
      fieldPath: metadata.namespace
{{- range .Values.extraEnv }}
{{- if or (hasKey $settings (trimPrefix "COMMONPLACE_OPERATOR_" .name)) (eq .name "COMMONPLACE_OPERATOR_NAMESPACE") }}
{{- fail (printf "extraEnv: the chart sets %s itself; use its value (see values.yaml)" .name) }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What a schema cannot say: faults of values that are wrong only together. */}}
{{- define "commonplace.check" -}}
{{- with .Values -}}
{{- if and (eq .rbac.scope "Namespaced") (not .watchNamespaces) -}}
{{- fail "rbac.scope Namespaced needs watchNamespaces: name the namespaces to serve, or use rbac.scope Cluster" -}}
{{- end -}}
{{- if and (gt (int .replicas) 1) (not .leaderElection.enabled) -}}
{{- fail "leaderElection.enabled false needs replicas 1: two operators without an election would both write" -}}
{{- end -}}
{{- with .leaderElection -}}
{{- if not (and (lt (float64 .retrySeconds) (float64 .renewDeadlineSeconds)) (lt (float64 .renewDeadlineSeconds) (float64 .leaseDurationSeconds))) -}}
{{- fail "leaderElection: retrySeconds has to be less than renewDeadlineSeconds, and that less than leaseDurationSeconds" -}}
{{- end -}}
{{- end -}}
{{- if not (or .serviceAccount.create .serviceAccount.name) -}}
{{- fail "serviceAccount.create false needs serviceAccount.name: name the ServiceAccount to use" -}}
{{- end -}}
{{- end -}}
{{- end -}}
