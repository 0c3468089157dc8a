package main

import "embed"

// manual holds what the manual pages say beside what the command line's definition
// knows: files, signals, exit statuses.
//
//go:embed manual/*.man
var manual embed.FS
