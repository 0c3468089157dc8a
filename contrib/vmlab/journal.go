package vmlab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Entry is one entry of a journal: its fields, as journalctl -o json gives them.
type Entry map[string]any

// Field gives a field's text; "": there is none, or it holds bytes that are no
// text.
func (e Entry) Field(name string) string {
	switch v := e[name].(type) {
	case string:
		return v
	case []any: // the field is there more than once
		if len(v) > 0 {
			s, _ := v[0].(string)
			return s
		}
	}
	return ""
}

// Journal gives the entries that journalctl finds with these arguments, oldest
// first.
func (h *Host) Journal(ctx context.Context, args ...string) ([]Entry, error) {
	out, err := h.Exec(ctx, append([]string{"journalctl", "--quiet", "--no-pager", "--all", "--output=json"}, args...)...)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var e Entry
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return entries, nil
		} else if err != nil {
			return nil, fmt.Errorf("vmlab: journal of %s: %w", h.Name(), err)
		}
		entries = append(entries, e)
	}
}
