// Package testutil has helpers for the tests of several packages.
package testutil
