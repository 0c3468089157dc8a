// Package grafana is a dashboard for Grafana: pmxcfs.json, to be imported as it is
// (Dashboards, New, Import). Its tests read it with Grafana's published types, which
// refuse what they do not know, and check each expression: that Prometheus can parse
// it, and that the metrics in it exist.
package grafana
