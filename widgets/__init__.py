"""Panels, figures and the HTML report: what people see of the workbench."""
