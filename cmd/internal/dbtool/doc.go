// Package dbtool is "pmxcfs db": check, repair, dump, export, import and backup of a
// database file, beside a running daemon or without one.
//
// No command changes a file that exists, and none leaves anything beside it.
package dbtool
