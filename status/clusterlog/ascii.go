package clusterlog

import (
	"strings"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// asciiText gives message text the form that it has inside an entry, cut to at
// most limit bytes (without a NUL):
//
//   - a double quote gets a backslash before it;
//   - control bytes and DEL become '#' and three decimal digits;
//   - other characters up to U+FFFF become \uXXXX in lower-case hex, those
//     beyond are dropped;
//   - if s is not valid UTF-8 as a whole, its bytes from 128 become '?'
//     instead.
//
// A backslash of the user's own stays as it is. The cut never leaves half of
// such a replacement.
func asciiText(s string, limit int) string {
	var b strings.Builder
	b.Grow(min(limit, len(s)+16))
	valid := utf8.ValidString(s)
	var unit [6]byte
	for i := 0; i < len(s); {
		r, size := rune(s[i]), 1
		if valid {
			r, size = utf8.DecodeRuneInString(s[i:])
		}
		i += size
		u := unit[:0]
		switch {
		case r == '"':
			u = append(u, '\\', '"')
		case r < ' ' || r == 0x7f:
			u = append(u, '#', '0'+byte(r/100), '0'+byte(r/10%10), '0'+byte(r%10))
		case r < 0x80:
			u = append(u, byte(r))
		case !valid:
			u = append(u, '?')
		case r <= 0xffff:
			u = appendUnicodeEscape(u, uint16(r))
		}
		if b.Len()+len(u) > limit {
			break
		}
		b.Write(u)
	}
	return b.String()
}

// appendUnicodeEscape appends \uXXXX.
func appendUnicodeEscape(dst []byte, c uint16) []byte {
	return append(dst, '\\', 'u', hexDigits[c>>12], hexDigits[c>>8&15], hexDigits[c>>4&15], hexDigits[c&15])
}
