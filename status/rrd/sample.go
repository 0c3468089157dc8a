package rrd

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The faults of a key and a value; errors of this package about them
// wrap one of these.
var (
	ErrKey   = errors.New("rrd: not a key of an RRD file")
	ErrValue = errors.New("rrd: malformed value")
)

// sample is what one value adds to one file.
type sample struct {
	family *family
	// file is the path below the directory; its parts are plain names.
	file []string
	// update is the timestamp and a value for each source, as librrd and
	// rrdcached want it.
	update string
}

// maxAhead is how far ahead of our clock a sample's time may be. What is further ahead
// counts as measured now: a file that has taken in a sample of the future refuses all
// others until then.
const maxAhead = step

// parser knows the families; it is stateless and safe for concurrent use.
type parser struct {
	families []*family
	number   *regexp.Regexp
}

func newParser() *parser {
	return &parser{
		families: families(),
		number:   regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`),
	}
}

// parse maps a key (without "rrd/") and its value (without NUL) to what is to
// be written, in the current format whatever format they have. The error wraps
// ErrKey or ErrValue.
func (p *parser) parse(key, value string, now time.Time) (sample, error) {
	f, known, file, err := p.parseKey(key)
	if err != nil {
		return sample{}, err
	}
	update, err := p.parseValue(f, known, value, now)
	if err != nil {
		return sample{}, err
	}
	return sample{f, file, update}, nil
}

// parseKey gives the family, how many sources the key's format has of those we
// know, and the file.
func (p *parser) parseKey(key string) (*family, int, []string, error) {
	parts := strings.Split(key, "/")
	for _, f := range p.families {
		known := len(f.sources)
		switch {
		case parts[0] == f.legacy:
			known = f.legacySources
		case !currentOrNewer(parts[0], f.prefix):
			continue
		}
		if len(parts) != f.names+1 {
			return nil, 0, nil, fmt.Errorf("%w: %q has %d parts", ErrKey, key, len(parts))
		}
		for _, name := range parts[1:] {
			if !plainName(name) || f.guest && !vmid(name) {
				return nil, 0, nil, fmt.Errorf("%w: %q: bad name %q", ErrKey, key, name)
			}
		}
		return f, known, append([]string{f.current}, parts[1:]...), nil
	}
	return nil, 0, nil, fmt.Errorf("%w: %q", ErrKey, key)
}

// currentOrNewer tells whether s is prefix and a version of 9.0 or higher.
func currentOrNewer(s, prefix string) bool {
	version, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return false
	}
	major, minor, ok := strings.Cut(version, ".")
	return ok && digits(major, 4) && digits(minor, 4) && major[0] != '0' && (len(major) > 1 || major == "9")
}

// plainName tells whether s can be a file's name and an argument of rrdcached's
// as it is: letters, digits, '_', '-' and '.', not beginning with the latter two.
// Names of nodes and storages have no others.
func plainName(s string) bool {
	if s == "" || len(s) > 255 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func vmid(s string) bool { return digits(s, 10) && s[0] != '0' }

// digits tells whether s is 1 to limit decimal digits.
func digits(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// parseValue drops the columns before the timestamp and those after the known
// ones, and makes up for those that an old format lacks.
func (p *parser) parseValue(f *family, known int, value string, now time.Time) (string, error) {
	columns := strings.Split(value, ":")
	if len(columns) < f.skip+1+known {
		return "", fmt.Errorf("%w: %d columns, want %d", ErrValue, len(columns), f.skip+1+known)
	}
	columns = columns[f.skip:]
	when := columns[0]
	if !digits(when, 12) {
		return "", fmt.Errorf("%w: timestamp %.20q", ErrValue, when)
	}
	if seconds, _ := strconv.ParseInt(when, 10, 64); seconds > now.Add(maxAhead).Unix() {
		when = strconv.FormatInt(now.Unix(), 10)
	}
	var b strings.Builder
	b.Grow(len(value) + 2*len(f.sources))
	b.WriteString(when)
	for i, s := range f.sources {
		b.WriteByte(':')
		if i >= known {
			b.WriteByte('U')
			continue
		}
		v, ok := p.column(columns[1+i], s.typ)
		if !ok {
			return "", fmt.Errorf("%w: %s is %.40q", ErrValue, s.name, columns[1+i])
		}
		b.WriteString(v)
	}
	return b.String(), nil
}

// column gives a column the form that librrd takes: a number, for a DERIVE
// source a whole one, or U for one that is not known.
func (p *parser) column(s string, typ sourceType) (string, bool) {
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case "", "u", "nan", "inf", "infinity":
		return "U", true
	}
	if len(s) > 40 || !p.number.MatchString(s) {
		return "", false
	}
	if typ == gauge || digits(strings.TrimPrefix(s, "-"), 18) {
		return s, true
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(v) >= math.MaxInt64 {
		return "U", true
	}
	return strconv.FormatInt(int64(v), 10), true
}
