"""A Plan as manifests of Argo Workflows: rendered, linted, compared."""
