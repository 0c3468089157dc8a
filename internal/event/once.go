package event

// Once tells trouble that lasts from new trouble, for log lines that are written once and not
// at each attempt. The zero value knows of none. It is for one goroutine at a time.
type Once struct{ last string }

// New reports whether err is another trouble than the last one, by its text. Nil is none.
func (o *Once) New(err error) bool {
	if err == nil || err.Error() == o.last {
		return false
	}
	o.last = err.Error()
	return true
}

// Over ends the trouble: the same again is new.
func (o *Once) Over() { o.last = "" }
