package ipc

import (
	"bytes"
	"crypto/subtle"
)

// tokenFile has a line for each API token.
const tokenFile = "priv/token.cfg"

// hasToken reports whether a line of the token file equals token. How long it takes
// tells a client the lengths of lines at most: it looks at all of them, and at
// all bytes of those as long as the token.
func hasToken(file []byte, token string) bool {
	want := []byte(token)
	found := 0
	for line := range bytes.Lines(file) {
		found |= subtle.ConstantTimeCompare(bytes.TrimSuffix(line, []byte{'\n'}), want)
	}
	return found == 1
}
