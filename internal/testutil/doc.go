// Package testutil has what the tests of several packages need.
package testutil
