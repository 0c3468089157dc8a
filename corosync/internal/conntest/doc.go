// Package conntest has what the tests of the bindings share: connections to a
// corosync that isn't ready yet, and a check that they give back all they take.
package conntest
