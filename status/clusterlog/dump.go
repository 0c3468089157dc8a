package clusterlog

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// DefaultEntries is how many entries a dump has unless another number is asked
// for.
const DefaultEntries = 50

// Dump is the log as JSON, newest entry first: the content of .clusterlog and
// the answer of the IPC service. It has at most max entries (0 or less:
// DefaultEntries), and if user is not empty only those whose ident has user's
// digest. It is valid JSON whatever the entries hold. The caller owns it.
func (l *Log) Dump(max int, user string) []byte {
	if max <= 0 {
		max = DefaultEntries
	}
	list := l.Entries()
	if user != "" {
		want := Digest(cutName(user))
		kept := list[:0]
		for _, e := range list {
			if e.IdentDigest() == want {
				kept = append(kept, e)
			}
		}
		list = kept
	}
	return dump(list[:min(len(list), max)])
}

// dump writes entries in the given order.
func dump(list []Entry) []byte {
	size := 32
	for _, e := range list {
		size += len(e.raw) + 96
	}
	b := append(make([]byte, 0, size), "{\n\"data\": [\n"...)
	for i, e := range list {
		if i > 0 {
			b = append(b, ",\n"...)
		}
		b = append(b, `{"uid": `...)
		b = strconv.AppendUint(b, uint64(e.UID()), 10)
		b = append(b, `, "time": `...)
		b = strconv.AppendUint(b, uint64(e.Time()), 10)
		b = append(b, `, "pri": `...)
		b = strconv.AppendUint(b, uint64(e.Priority()), 10)
		b = append(b, `, "tag": "`...)
		b = appendJSON(b, e.Tag())
		b = append(b, `", "pid": `...)
		b = strconv.AppendUint(b, uint64(e.PID()), 10)
		b = append(b, `, "node": "`...)
		b = appendJSON(b, e.Node())
		b = append(b, `", "user": "`...)
		b = appendJSON(b, e.Ident())
		b = append(b, `", "msg": "`...)
		b = appendJSON(b, e.Text())
		b = append(b, `"}`...)
	}
	if len(list) > 0 {
		b = append(b, '\n')
	}
	return append(b, "]\n}\n"...)
}

// appendJSON appends s for use between the quotes of a JSON string. What is
// valid there stays as it is, escapes included (packing made them); what is
// not is escaped: a bare quote, a backslash that begins no escape, a control
// byte. Half a surrogate pair counts as no escape, and bytes that are not UTF-8
// become U+FFFD, for many decoders refuse either.
func appendJSON(dst, s []byte) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\\':
			n := escapeLen(s[i:])
			if n == 0 {
				dst = append(dst, '\\')
				n = 1
			}
			dst = append(dst, s[i:i+n]...)
			i += n
		case c == '"':
			dst = append(dst, '\\', '"')
			i++
		case c < ' ' || c == 0x7f:
			dst = appendUnicodeEscape(dst, uint16(c))
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return dst
}

// escapeLen is the length of the JSON escape (for a character beyond U+FFFF: of
// both its halves) at the start of s, or 0.
func escapeLen(s []byte) int {
	if len(s) >= 2 && bytes.IndexByte([]byte(`"\/bfnrt`), s[1]) >= 0 {
		return 2
	}
	unit, ok := unicodeEscape(s)
	switch {
	case !ok || unit >= 0xdc00 && unit <= 0xdfff:
		return 0
	case unit >= 0xd800 && unit <= 0xdbff:
		if low, ok := unicodeEscape(s[6:]); !ok || low < 0xdc00 || low > 0xdfff {
			return 0
		}
		return 12
	}
	return 6
}

// unicodeEscape reads \uXXXX at the start of s.
func unicodeEscape(s []byte) (uint16, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	return uint16(v), err == nil
}
