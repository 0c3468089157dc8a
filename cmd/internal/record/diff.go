package record

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// lines takes a text apart, the ends of its lines included.
func lines(text []byte) []string {
	var list []string
	for line := range bytes.Lines(text) {
		list = append(list, string(line))
	}
	return list
}

// edit is a part in which two texts differ: lines a to b of the first one have become lines c to
// d of the second.
type edit struct{ a, b, c, d int }

// maxEdits bounds the search for a shortest difference. Texts that have hardly anything in common
// are shown as one part.
const maxEdits = 1500

// compare returns how two texts differ, from the beginning to the end (Myers 1986).
func compare(a, b []string) []edit {
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	n, m := len(a), len(b)
	for n > start && m > start && a[n-1] == b[m-1] {
		n, m = n-1, m-1
	}
	x, y := a[start:n], b[start:m]
	if len(x) == 0 && len(y) == 0 {
		return nil
	}
	same := common(x, y)
	var list []edit
	i, j := 0, 0
	for _, s := range append(same, [2]int{len(x), len(y)}) {
		if i < s[0] || j < s[1] {
			list = append(list, edit{start + i, start + s[0], start + j, start + s[1]})
		}
		i, j = s[0]+1, s[1]+1
	}
	return list
}

// common returns the lines that a longest common part of two texts consists of, as pairs of
// their numbers.
func common(a, b []string) (same [][2]int) {
	n, m := len(a), len(b)
	most := min(n+m, maxEdits)
	front := make([]int, 2*most+3) // by diagonal, from -most-1: how far x has come
	middle := most + 1
	var trace [][]int // front before each round, its diagonals from -d-1 to d+1
	for d := 0; d <= most; d++ {
		trace = append(trace, slices.Clone(front[middle-d-1:middle+d+2]))
		for k := -d; k <= d; k += 2 {
			x := front[middle+k-1] + 1
			if k == -d || k != d && front[middle+k-1] < front[middle+k+1] {
				x = front[middle+k+1]
			}
			y := x - k
			for x < n && y < m && a[x] == b[y] {
				x, y = x+1, y+1
			}
			front[middle+k] = x
			if x >= n && y >= m {
				return wayBack(trace, n, m)
			}
		}
	}
	return nil
}

// wayBack follows the way that the search has come.
func wayBack(trace [][]int, x, y int) (same [][2]int) {
	for d := len(trace) - 1; d >= 0; d-- {
		front, middle := trace[d], d+1
		k := x - y
		from := k - 1
		if k == -d || k != d && front[middle+k-1] < front[middle+k+1] {
			from = k + 1
		}
		px := front[middle+from]
		for x > px && y > px-from {
			x, y = x-1, y-1
			same = append(same, [2]int{x, y})
		}
		x, y = px, px-from
	}
	slices.Reverse(same)
	return same
}

// around is how many equal lines a unified difference shows around each part.
const around = 3

// Unified writes the difference of two texts in the form of diff -u. It writes nothing if they
// are equal, and reports whether they are not.
func Unified(out io.Writer, color bool, nameA, nameB string, textA, textB []byte) bool {
	if bytes.Equal(textA, textB) {
		return false
	}
	paint := func(code, text string) string {
		if !color {
			return text
		}
		body := strings.TrimSuffix(text, "\n")
		return "\x1b[" + code + "m" + body + "\x1b[0m" + text[len(body):]
	}
	if binary(textA) || binary(textB) {
		fmt.Fprintf(out, "%s (%d bytes) and %s (%d bytes) differ\n", nameA, len(textA), nameB, len(textB))
		return true
	}
	fmt.Fprintf(out, "%s%s", paint("1", "--- "+nameA+"\n"), paint("1", "+++ "+nameB+"\n"))
	a, b := lines(textA), lines(textB)
	edits := compare(a, b)
	line := func(mark, code, text string) {
		if !strings.HasSuffix(text, "\n") {
			text += "\n\\ No newline at end of file\n"
		}
		fmt.Fprint(out, paint(code, mark+text))
	}
	for len(edits) > 0 {
		n := 1
		for n < len(edits) && edits[n].a-edits[n-1].b <= 2*around {
			n++
		}
		first, last := edits[0], edits[n-1]
		begin, end := max(0, first.a-around), min(len(a), last.b+around)
		from, to := first.c-(first.a-begin), last.d+(end-last.b)
		fmt.Fprint(out, paint("36", fmt.Sprintf("@@ -%s +%s @@\n", span(begin, end), span(from, to))))
		at := begin
		for _, e := range edits[:n] {
			for _, text := range a[at:e.a] {
				line(" ", "0", text)
			}
			for _, text := range a[e.a:e.b] {
				line("-", "31", text)
			}
			for _, text := range b[e.c:e.d] {
				line("+", "32", text)
			}
			at = e.b
		}
		for _, text := range a[at:end] {
			line(" ", "0", text)
		}
		edits = edits[n:]
	}
	return true
}

// span is a range of lines as diff writes it.
func span(begin, end int) string {
	switch end - begin {
	case 0:
		return fmt.Sprintf("%d,0", begin)
	case 1:
		return fmt.Sprint(begin + 1)
	}
	return fmt.Sprintf("%d,%d", begin+1, end-begin)
}

// binary reports whether a text is none.
func binary(text []byte) bool { return bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 }
