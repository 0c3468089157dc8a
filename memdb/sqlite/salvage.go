package sqlite

import (
	"encoding/binary"
	"errors"
	"math"
)

// Pages of SQLite's file format (https://www.sqlite.org/fileformat.html), as far
// as it takes to find the rows of one table in a file that SQLite itself
// refuses to read.
const (
	fileHeaderSize = 100
	leafPage       = 13 // first byte of a page with rows of a table
	leafHeaderSize = 8
	maxRowBytes    = 16 << 20 // a row that claims to be longer is none
)

// salvage finds rows in the bytes of a database file: every row of eight columns
// on every page that holds rows and is not free. It makes no use of the tree of
// pages, so it finds what SQLite can't reach any more. Of a row whose content
// continues on pages that are destroyed, the beginning is returned; torn counts
// those. It never fails: rubbish holds no rows.
func salvage(file []byte) (rows []Row, torn int) {
	f := pages{file: file, size: pageSize, usable: pageSize, taken: make(map[uint32]bool)}
	if len(file) >= fileHeaderSize && string(file[:16]) == "SQLite format 3\x00" {
		size := int(binary.BigEndian.Uint16(file[16:]))
		if size == 1 {
			size = 65536
		}
		if size >= 512 && size&(size-1) == 0 {
			f.size = size
			f.usable = size
			if reserved := int(file[20]); size-reserved >= 480 {
				f.usable = size - reserved
			}
		}
	}
	free := f.freelist()
	for n := uint32(1); int64(n) <= int64(len(file)/f.size); n++ {
		if free[n] {
			continue
		}
		f.rows(n, func(row Row, whole bool) {
			rows = append(rows, row)
			if !whole {
				torn++
			}
		})
	}
	return rows, torn
}

// pages is a database file by pages, which count from 1.
type pages struct {
	file         []byte
	size, usable int
	taken        map[uint32]bool // overflow pages: each belongs to one row, whatever the file says
}

// page returns a page's usable part, or nil if there is no such page.
func (f *pages) page(n uint32) []byte {
	at := (int64(n) - 1) * int64(f.size)
	if n == 0 || at+int64(f.size) > int64(len(f.file)) {
		return nil
	}
	return f.file[at : at+int64(f.usable)]
}

// freelist returns the pages that are free: rows on them were deleted.
func (f *pages) freelist() map[uint32]bool {
	free := make(map[uint32]bool)
	if len(f.file) < fileHeaderSize {
		return free
	}
	for trunk := binary.BigEndian.Uint32(f.file[32:]); trunk > 1 && !free[trunk]; {
		p := f.page(trunk)
		if p == nil || p[0] == leafPage { // not what a list's page begins with
			break
		}
		free[trunk] = true
		n := min(int64(binary.BigEndian.Uint32(p[4:])), int64(len(p)/4-2))
		for i := range n {
			free[binary.BigEndian.Uint32(p[8+4*i:])] = true
		}
		trunk = binary.BigEndian.Uint32(p)
	}
	return free
}

// rows calls found with each row on a page.
func (f *pages) rows(n uint32, found func(row Row, whole bool)) {
	p := f.page(n)
	head := p
	if n == 1 && len(p) > fileHeaderSize {
		head = p[fileHeaderSize:]
	}
	if len(head) < leafHeaderSize || head[0] != leafPage {
		return
	}
	cells := int(binary.BigEndian.Uint16(head[3:]))
	room := len(p)
	for i := range min(cells, (len(head)-leafHeaderSize)/2) {
		at := int(binary.BigEndian.Uint16(head[leafHeaderSize+2*i:]))
		if at == 0 || at >= len(p) {
			continue
		}
		row, local, whole, ok := f.cell(p[at:])
		if room -= local; room < 0 {
			return // cells that lie upon each other
		}
		if ok {
			found(row, whole)
		}
	}
}

// cell takes a row apart, following it to its overflow pages. Local is how many
// bytes of it lie in b.
func (f *pages) cell(b []byte) (row Row, local int, whole, ok bool) {
	length, n := varint(b)
	if n == 0 || length > uint64(min(len(f.file), maxRowBytes)) {
		return row, 0, false, false
	}
	b = b[n:]
	rowid, n := varint(b)
	if n == 0 {
		return row, 0, false, false
	}
	b = b[n:]
	total := int(length)
	local = total
	if most := f.usable - 35; total > most {
		least := (f.usable-12)*32/255 - 23
		local = least + (total-least)%(f.usable-4)
		if local > most {
			local = least
		}
	}
	if local > len(b) || local < total && local+4 > len(b) {
		return row, 0, false, false
	}
	record := b[:local]
	if local < total {
		record = f.overflow(record, total, binary.BigEndian.Uint32(b[local:]))
	}
	row, ok = parseRecord(record, total)
	row[0] = int64(rowid)
	return row, local, len(record) == total, ok
}

// overflow returns a record of total bytes that begins with begin and goes on on
// the given page; less, if a page of it is missing or can't be one.
func (f *pages) overflow(begin []byte, total int, next uint32) []byte {
	record := append(make([]byte, 0, total), begin...)
	for len(record) < total {
		p := f.page(next)
		if p == nil || f.taken[next] {
			break
		}
		f.taken[next] = true
		part := p[4:min(len(p), 4+total-len(record))]
		record = append(record, part...)
		next = binary.BigEndian.Uint32(p)
		if last := len(record) == total; last != (next == 0) {
			return record[:len(record)-len(part)]
		}
	}
	return record
}

// parseRecord takes a record of eight columns apart, the last of which may be
// cut short. The first stands for the row's number, and is NULL.
func parseRecord(record []byte, total int) (row Row, ok bool) {
	headerSize, n := varint(record)
	if n == 0 || headerSize < uint64(n) || headerSize > uint64(len(record)) {
		return row, false
	}
	header, body := record[n:headerSize], record[headerSize:]
	left := total - int(headerSize) // bytes that the columns must take up
	for i := range row {
		t, n := varint(header)
		if n == 0 {
			return row, false
		}
		header = header[n:]
		size, isInt := columnSize(t)
		if size > left || i == 0 && t != 0 || i >= 1 && i <= 5 && !isInt || i == 6 && t < 12 {
			return row, false
		}
		left -= size
		if size > len(body) {
			if i < len(row)-1 || t < 12 {
				return row, false
			}
			size = len(body)
		}
		row[i] = columnValue(t, body[:size])
		body = body[size:]
	}
	return row, len(header) == 0 && left == 0
}

// columnSize returns how many bytes a value of a serial type takes.
func columnSize(t uint64) (size int, isInt bool) {
	switch {
	case t == 0:
		return 0, false
	case t <= 4:
		return int(t), true
	case t == 5:
		return 6, true
	case t == 6:
		return 8, true
	case t == 7:
		return 8, false
	case t == 8, t == 9:
		return 0, true
	case t < 12 || t > 2*maxRowBytes:
		return math.MaxInt, false
	}
	return int(t-12) / 2, false
}

func columnValue(t uint64, b []byte) any {
	switch {
	case t == 0:
		return nil
	case t <= 6:
		v := int64(int8(b[0]))
		for _, c := range b[1:] {
			v = v<<8 | int64(c)
		}
		return v
	case t == 7:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	case t <= 9:
		return int64(t - 8)
	case t%2 == 1:
		return string(b)
	}
	return append([]byte(nil), b...)
}

// varint reads SQLite's variable-length integer and returns how many bytes it
// took; 0 if b ends before it does.
func varint(b []byte) (v uint64, n int) {
	for n < 8 {
		if n >= len(b) {
			return 0, 0
		}
		c := b[n]
		n++
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, n
		}
	}
	if n >= len(b) {
		return 0, 0
	}
	return v<<8 | uint64(b[n]), n + 1
}

var errNothingFound = errors.New("no row of a configuration tree was found in the file")
