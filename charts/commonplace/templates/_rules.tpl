{{/* What the operator does in a namespace that it serves. Writes are server-side apply (patch, and create what is new). */}}
{{- define "commonplace.servingRules" -}}
- apiGroups: [commonplace.dev]
  resources: [memoryruntimes, memoryteams, apikeys, memoryquotas]
  verbs: [get, list, watch, patch]
- apiGroups: [commonplace.dev]
  resources: [memoryruntimes/status, memoryteams/status, apikeys/status, memoryquotas/status]
  verbs: [patch]
# Asked for by OpenShift, and wherever OwnerReferencesPermissionEnforcement is on, of who sets a blocking owner reference.
- apiGroups: [commonplace.dev]
  resources: [memoryruntimes/finalizers, memoryteams/finalizers, apikeys/finalizers, memoryquotas/finalizers]
  verbs: [update]
# Roles know no labels: the Secrets that runtimes name are read, those of ApiKeys are written, others are never asked for.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# The rest is for runtimes with management Managed.
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}

{{- define "commonplace.subject" -}}
- kind: ServiceAccount
  name: {{ include "commonplace.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
