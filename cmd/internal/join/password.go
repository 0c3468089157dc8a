package join

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Asker asks the user. Several answers may come from one input.
type Asker struct {
	in   io.Reader
	out  io.Writer
	read *bufio.Reader
}

// NewAsker returns one.
func NewAsker(in io.Reader, out io.Writer) *Asker {
	return &Asker{in: in, out: out, read: bufio.NewReader(in)}
}

// Terminal tells whether somebody sits there.
func (a *Asker) Terminal() bool {
	f, ok := a.in.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Line asks for a line.
func (a *Asker) Line(prompt string) (string, error) {
	fmt.Fprint(a.out, prompt)
	text, err := a.read.ReadString('\n')
	if err != nil && text == "" {
		return "", errors.New("the input ended where an answer was expected")
	}
	return strings.TrimRight(text, "\r\n"), nil
}

// Yes asks whether to go on.
func (a *Asker) Yes(prompt string) bool {
	answer, err := a.Line(prompt)
	return err == nil && strings.EqualFold(strings.TrimSpace(answer), "yes")
}

// errInterrupted is Ctrl-C at a prompt, whose terminal gives no signal for it.
var errInterrupted = errors.New("interrupted")

// Password asks for a password, which a terminal shows as stars.
func (a *Asker) Password(prompt string) (string, error) {
	if !a.Terminal() {
		return a.Line(prompt)
	}
	fd := int(a.in.(*os.File).Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	raw := *before
	raw.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before)
	fmt.Fprint(a.out, prompt)
	defer fmt.Fprintln(a.out)
	return readPassword(a.read, a.out)
}

// readPassword reads keys until return.
func readPassword(in *bufio.Reader, out io.Writer) (string, error) {
	var typed []rune
	stars := true
	for {
		c, _, err := in.ReadRune()
		if err != nil {
			return "", err
		}
		switch c {
		case '\r', '\n', 4: // Ctrl-D
			return string(typed), nil
		case 3: // Ctrl-C
			return "", errInterrupted
		case '\t':
			if stars {
				fmt.Fprint(out, strings.Repeat("\b \b", len(typed)))
			}
			stars = false
		case 8, 127:
			if len(typed) > 0 {
				typed = typed[:len(typed)-1]
				if stars {
					fmt.Fprint(out, "\b \b")
				}
			}
		default:
			typed = append(typed, c)
			if stars {
				fmt.Fprint(out, "*")
			}
		}
	}
}
