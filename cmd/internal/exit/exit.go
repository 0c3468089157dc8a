// Package exit has the exit statuses of the commands, which are part of their contract.
package exit

const (
	OK      = 0
	Failure = 1 // anything that failed
	Usage   = 2 // wrong usage, where a script must tell it from a failure
)

// Status is an error that ends the program with that status and no words, since
// whatever there is to say has been said. It is a cli.ExitCoder.
type Status int

func (Status) Error() string { return "" }

// ExitCode returns the status.
func (s Status) ExitCode() int { return int(s) }
