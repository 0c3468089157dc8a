package rrd

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxCommand is the largest line in bytes that rrdcached takes, its line feed
// included (RRD_CMD_MAX of rrd_client.h).
const maxCommand = 4096

// pauseAfterHang is how long an rrdcached that did not answer in time, or not
// in its protocol, is left alone. One that is not running is asked each time: that
// costs nothing.
const pauseAfterHang = 30 * time.Second

// errPaused is the error while rrdcached is left alone.
var errPaused = errors.New("rrdcached: did not answer, left alone for a while")

// rrdcached is a connection to rrdcached, made when it is needed and kept. It
// is for one goroutine.
type rrdcached struct {
	socket  string // path
	timeout time.Duration
	now     func() time.Time

	conn   net.Conn
	r      *bufio.Reader
	paused time.Time // not asked before
}

// command is the line that adds a sample to the file path.
func command(path, update string) string {
	return "UPDATE " + escape(path) + " " + update + "\n"
}

// escape makes a path one argument.
func escape(path string) string { return strings.NewReplacer(`\`, `\\`, " ", `\ `).Replace(path) }

// forget has rrdcached drop what it knows of a file, samples that it has not written
// included.
func (c *rrdcached) forget(path string) error {
	if c.conn == nil {
		return nil // it is asked after it has answered
	}
	err := c.conn.SetDeadline(time.Now().Add(c.timeout))
	if err == nil {
		_, err = c.conn.Write([]byte("FORGET " + escape(path) + "\n"))
	}
	if err == nil {
		_, _, err = c.line() // that it knows nothing is fine, too
	}
	if err != nil {
		c.close()
		return fmt.Errorf("rrdcached: %w", err)
	}
	return nil
}

// update hands over commands in one batch. It gives the errors about single
// ones by their index, or, if rrdcached is not there or does not answer as it
// should, an error about all: which of them it has taken in is then unknown.
func (c *rrdcached) update(commands []string) (refused map[int]error, err error) {
	if c.now().Before(c.paused) {
		return nil, errPaused
	}
	reused := c.conn != nil
	err = c.begin()
	if err != nil && reused && !hangs(err) {
		// rrdcached may have been restarted since; nothing was handed over.
		err = c.begin()
	}
	if err == nil {
		refused, err = c.batch(commands)
	}
	if err != nil {
		c.close()
		if hangs(err) {
			c.paused = c.now().Add(pauseAfterHang)
		}
		return nil, fmt.Errorf("rrdcached: %w", err)
	}
	return refused, nil
}

// hangs tells whether err is of an rrdcached that is there, but of no use.
func hangs(err error) bool {
	var broken *protocolError
	return errors.As(err, &broken) || errors.Is(err, os.ErrDeadlineExceeded)
}

// begin connects if need be and opens a batch.
func (c *rrdcached) begin() error {
	if c.conn == nil {
		conn, err := net.DialTimeout("unix", c.socket, c.timeout)
		if err != nil {
			return err
		}
		c.conn, c.r = conn, bufio.NewReader(conn)
	}
	err := func() error {
		// A deadline is about the machine's time, not the clock of samples.
		if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
		if _, err := c.conn.Write([]byte("BATCH\n")); err != nil {
			return err
		}
		status, text, err := c.line()
		if err == nil && status != 0 {
			err = &protocolError{text}
		}
		return err
	}()
	if err != nil {
		c.close()
	}
	return err
}

// batch sends the commands of an open batch and reads what became of them.
func (c *rrdcached) batch(commands []string) (map[int]error, error) {
	var b strings.Builder
	for _, line := range commands {
		b.WriteString(line)
	}
	b.WriteString(".\n")
	if _, err := c.conn.Write([]byte(b.String())); err != nil {
		return nil, err
	}
	count, text, err := c.line()
	if err != nil {
		return nil, err
	}
	if count < 0 || count > len(commands) {
		return nil, &protocolError{text}
	}
	refused := make(map[int]error, count)
	for range count {
		number, text, err := c.line()
		if err != nil {
			return nil, err
		}
		if number < 1 || number > len(commands) {
			return nil, &protocolError{text}
		}
		refused[number-1] = &RefusedError{text}
	}
	return refused, nil
}

// line reads a line: a number and a text.
func (c *rrdcached) line() (int, string, error) {
	// ReadSlice bounds the line by the reader's buffer.
	b, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return 0, "", &protocolError{string(b[:60])}
	}
	if err != nil {
		return 0, "", err
	}
	number, text, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0, "", &protocolError{string(b)}
	}
	return n, strings.TrimSpace(text), nil
}

func (c *rrdcached) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn, c.r = nil, nil
	}
}

// protocolError is about an answer that the protocol does not have.
type protocolError struct{ text string }

func (e *protocolError) Error() string { return fmt.Sprintf("unexpected answer %.60q", e.text) }

// RefusedError is rrdcached's error about one sample.
type RefusedError struct {
	Text string
}

func (e *RefusedError) Error() string { return "rrdcached: " + e.Text }

// foreign tells whether the file is none of those that rrdcached may write (its
// options -B and -P). It then holds no samples for it, which a direct update
// would make useless. rrdcached's protocol has no codes for its errors, so this
// one is known by its text.
func (e *RefusedError) foreign() bool { return strings.Contains(e.Text, "Permission denied") }

var refusedFor = regexp.MustCompile(`last update time is ([0-9]{1,12})`)

// last returns the time of the last sample that rrdcached has for the file, if it
// refuses this one for not being later.
func (e *RefusedError) last() (time.Time, bool) {
	m := refusedFor.FindStringSubmatch(e.Text)
	if m == nil {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(m[1], 10, 64)
	return time.Unix(seconds, 0), err == nil
}
