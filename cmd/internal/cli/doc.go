// Package cli makes manual pages and shell completion of a command line's definition.
package cli
