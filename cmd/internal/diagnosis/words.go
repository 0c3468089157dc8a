package diagnosis

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// duration says how long something takes, in words: "3 s", "12 min", "5 h 20 min",
// "3 days".
func duration(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < 120*time.Second:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 120*time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// size says how many bytes, in words.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// clean makes a text that may come from anybody fit for a terminal: without control
// characters.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// when says a time of the local clock.
func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
