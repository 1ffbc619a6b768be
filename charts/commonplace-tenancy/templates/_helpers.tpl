{{/*
One object. Given as a dict: root, kind, name, namespace, entry (its labels and annotations) and spec.
*/}}
{{- define "tenancy.object" -}}
{{- $root := .root -}}
{{- $labels := merge (dict
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/part-of" "commonplace"
) (deepCopy (default dict .entry.labels)) $root.Values.labels -}}
{{- $annotations := merge (deepCopy (default dict .entry.annotations)) $root.Values.annotations -}}
{{- with $root.Values.operatorClass -}}
{{- $_ := set $annotations "commonplace.dev/operator-class" . -}}
{{- end -}}
{{- if $root.Values.keep -}}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" -}}
{{- end -}}
---
apiVersion: commonplace.dev/v1alpha1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- toYaml $labels | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- toYaml .spec | nindent 2 }}
{{- end -}}

{{/* Namespace of an entry: its own, the values', the release's. Given as a list of root and entry. */}}
{{- define "tenancy.namespace" -}}
{{- $root := index . 0 -}}
{{- coalesce (index . 1).namespace $root.Values.namespace $root.Release.Namespace -}}
{{- end -}}

{{/* Name of a team's part, at most 63 characters: cutting it would make two names one. Given as team, key, entry, path. */}}
{{- define "tenancy.partName" -}}
{{- $name := default (printf "%s-%s" .team .key) .entry.name -}}
{{- if gt (len $name) 63 -}}
{{- fail (printf "%s: the name %s has more than 63 characters; give the entry a shorter name" .path $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}
