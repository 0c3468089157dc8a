// Package cli generates manual pages and shell completion from a command line's definition.
package cli
