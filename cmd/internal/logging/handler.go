package logging

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"pmxcfs/internal/event"
)

// Keys of attributes that the handler treats in ways of their own.
const (
	domainKey = "domain"
	errorKey  = "error"
	nodeKey   = "node"
)

// record is one log message, ready to be written somewhere.
type record struct {
	time   time.Time
	level  slog.Level
	domain string
	text   string      // message and attributes, as people read it
	event  event.Event // what it is about; empty means nothing in particular
	attrs  []slog.Attr // what text shows; keys of groups joined with dots
	fields []slog.Attr // what it doesn't
}

// priority is syslog's number for a level.
func priority(level slog.Level) int {
	switch {
	case level >= event.LevelCritical:
		return 2
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= event.LevelNotice:
		return 5
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}

// handler is a slog.Handler that hands records to a function.
type handler struct {
	level  slog.Leveler
	write  func(*record)
	domain string
	event  event.Event
	attrs  []slog.Attr
	fields []slog.Attr
	group  string // prefix of keys, with its dot
}

func newHandler(level slog.Leveler, write func(*record)) *handler {
	return &handler{level: level, write: write}
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	rec := &record{time: r.Time, level: r.Level, domain: h.domain, event: h.event, attrs: slices.Clone(h.attrs), fields: slices.Clone(h.fields)}
	r.Attrs(func(a slog.Attr) bool {
		if o, ok := a.Value.Any().(event.Occurrence); ok {
			rec.event = cmp.Or(o.Event, rec.event)
			for _, f := range o.Fields {
				rec.fields = flatten(rec.fields, h.group, f)
			}
			return true
		}
		rec.attrs = flatten(rec.attrs, h.group, a)
		return true
	})
	var b strings.Builder
	b.WriteString(r.Message)
	cause := ""
	for _, a := range rec.attrs {
		value := a.Value.String()
		if a.Key == errorKey {
			cause = ": " + value
			continue
		}
		if value == "" || strings.ContainsAny(value, " \t\n\"") {
			value = strconv.Quote(value)
		}
		b.WriteString(" " + a.Key + "=" + value)
	}
	b.WriteString(cause)
	rec.text = b.String()
	h.write(rec)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs, next.fields = slices.Clone(h.attrs), slices.Clone(h.fields)
	for _, a := range attrs {
		if o, ok := a.Value.Any().(event.Occurrence); ok {
			next.event = cmp.Or(o.Event, next.event)
			for _, f := range o.Fields {
				next.fields = flatten(next.fields, h.group, f)
			}
			continue
		}
		if a.Key == domainKey && h.group == "" {
			next.domain = a.Value.String()
			continue
		}
		next.attrs = flatten(next.attrs, h.group, a)
	}
	return &next
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	return &next
}

// flatten appends an attribute, a group's one by one.
func flatten(list []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return list
	}
	if a.Value.Kind() != slog.KindGroup {
		a.Key = prefix + a.Key
		return append(list, a)
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, b := range a.Value.Group() {
		list = flatten(list, prefix, b)
	}
	return list
}

// fanout is a handler that passes records on to several.
type fanout []slog.Handler

func (f fanout) Enabled(ctx context.Context, l slog.Level) bool {
	for _, h := range f {
		if h.Enabled(ctx, l) {
			return true
		}
	}
	return false
}

func (f fanout) Handle(ctx context.Context, r slog.Record) error {
	var errs []error
	for _, h := range f {
		if h.Enabled(ctx, r.Level) {
			errs = append(errs, h.Handle(ctx, r.Clone()))
		}
	}
	return errors.Join(errs...)
}

func (f fanout) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := make(fanout, len(f))
	for i, h := range f {
		next[i] = h.WithAttrs(attrs)
	}
	return next
}

func (f fanout) WithGroup(name string) slog.Handler {
	next := make(fanout, len(f))
	for i, h := range f {
		next[i] = h.WithGroup(name)
	}
	return next
}

// textWriter writes records as lines for people.
type textWriter struct {
	out io.Writer
}

func (w textWriter) write(r *record) {
	level := [...]string{2: "critical", 3: "error", 4: "warning", 5: "notice", 6: "info", 7: "debug"}[priority(r.level)]
	fmt.Fprintf(w.out, "%s [%s] %s: %s\n", r.time.Format("15:04:05.000"), r.domain, level, strings.ReplaceAll(r.text, "\n", "\n\t"))
}
