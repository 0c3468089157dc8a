// Package cmap binds libcmap, corosync's map of keys and typed values: its
// configuration and what it knows at run time. Read only. cmap_overview(3),
// cmap_keys(7).
package cmap
