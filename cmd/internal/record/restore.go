package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"pmxcfs/memdb"
	"pmxcfs/memdb/history"
)

// Mount is the mounted tree, where it is read and changed.
type Mount string

// Piece is a path that is to be brought back to an earlier state.
type Piece struct {
	Path    string
	Want    history.State
	Data    []byte        // of a file
	Have    history.State // what is there now
	Present []byte        // its content
	Refused error         // why it can't be brought back
}

// Same reports whether nothing has to be done.
func (p *Piece) Same() bool { return p.Want == p.Have && bytes.Equal(p.Data, p.Present) }

func (m Mount) file(path string) string { return filepath.Join(string(m), path) }

// state returns what is at a path.
func (m Mount) state(path string) (history.State, []byte, error) {
	st, err := os.Lstat(m.file(path))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return history.Absent, nil, nil
	case err != nil:
		return 0, nil, err
	case st.IsDir():
		return history.Directory, nil, nil
	case !st.Mode().IsRegular():
		return 0, nil, fmt.Errorf("%s is neither a file nor a directory", m.file(path))
	}
	data, err := os.ReadFile(m.file(path))
	return history.File, data, err
}

// Plan finds out what there is to do for a path, and whether it can be done. Coming are the
// directories that will be there by then.
func (m Mount) Plan(path string, want history.State, data []byte, coming map[string]bool) (p Piece, err error) {
	p = Piece{Path: path, Want: want, Data: data}
	if p.Have, p.Present, err = m.state(path); err != nil {
		return p, err
	}
	if !p.Same() {
		p.Refused, err = m.refuse(&p, coming)
	}
	return p, err
}

// refuse says why a state can't be brought back.
func (m Mount) refuse(p *Piece, coming map[string]bool) (refusal, err error) {
	switch {
	case p.Path == "" || p.Path == memdb.LockDir || strings.HasPrefix(p.Path, memdb.LockDir+"/"):
		return errors.New("locks are not restored"), nil
	case p.Want == history.File && p.Have == history.Directory:
		return fmt.Errorf("%s is a directory now: move it away first", m.file(p.Path)), nil
	case p.Want == history.Directory && p.Have == history.File:
		return fmt.Errorf("%s is a file now, where a directory was: move it away first", m.file(p.Path)), nil
	}
	if p.Want == history.Absent {
		return nil, nil
	}
	for dir, _ := memdb.Split(p.Path); dir != ""; dir, _ = memdb.Split(dir) {
		state, _, err := m.state(dir)
		if err != nil {
			return nil, err
		}
		if state == history.File {
			return fmt.Errorf("a file is in the way at %s, where a directory was: move it away first", m.file(dir)), nil
		}
	}
	guest, ok := memdb.ParseGuest(p.Path)
	if !ok || p.Want != history.File || p.Have == history.File {
		return nil, nil
	}
	other, err := m.guest(guest.VMID)
	if err != nil || other == "" || other == p.Path || coming["-"+other] {
		return nil, err
	}
	return fmt.Errorf("guest %d lives at %s now: restoring %s would make a second one of this VMID; compare the two (pmxcfs history show %s), or remove that one first", guest.VMID, other, p.Path, p.Path), nil
}

// guest returns the path of the guest with a VMID; "": there is none.
func (m Mount) guest(vmid uint32) (string, error) {
	text, err := os.ReadFile(m.file(".vmlist"))
	if err != nil {
		return "", fmt.Errorf("reading the list of guests: %w", err)
	}
	var list struct {
		IDs map[string]struct{ Node, Type string } `json:"ids"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return "", fmt.Errorf("reading the list of guests: %w", err)
	}
	g, ok := list.IDs[fmt.Sprint(vmid)]
	if !ok {
		return "", nil
	}
	dir := g.Type
	if dir == memdb.GuestQemu.String() {
		dir = memdb.GuestQemu.Dir()
	}
	return fmt.Sprintf("nodes/%s/%s/%d.conf", g.Node, dir, vmid), nil
}

// Do brings a state back.
func (m Mount) Do(p *Piece) error {
	file := m.file(p.Path)
	var err error
	switch p.Want {
	case history.Absent:
		err = os.Remove(file)
	case history.Directory:
		err = m.dirs(p.Path)
	default:
		dir, _ := memdb.Split(p.Path)
		if err = m.dirs(dir); err == nil {
			err = write(file, p.Data, p.Have == history.Absent)
		}
	}
	if errors.Is(err, syscall.EACCES) {
		err = fmt.Errorf("%w (has this node quorum?)", err)
	}
	if err != nil {
		return fmt.Errorf("restoring %s: %w", p.Path, err)
	}
	return nil
}

// dirs makes a directory, and those above it.
func (m Mount) dirs(path string) error {
	if path == "" {
		return nil
	}
	if st, err := os.Lstat(m.file(path)); err == nil && st.IsDir() {
		return nil
	}
	dir, _ := memdb.Split(path)
	if err := m.dirs(dir); err != nil {
		return err
	}
	if err := os.Mkdir(m.file(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// write replaces a file's content, in one write(2) that either happens as a whole or not at all. What
// it has made anew it takes away again if that fails.
func write(path string, data []byte, isNew bool) error {
	flags := os.O_WRONLY | os.O_TRUNC
	if isNew {
		flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0o640)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err = errors.Join(err, f.Close()); err != nil && isNew {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// Wanted is what a path is to become.
type Wanted struct {
	Path  string
	State history.State
	Data  []byte
}

// PlanAll plans for several paths, in the order in which it can be done: what is to go first, the deepest
// first; then what is to be there, directories before what is in them.
func (m Mount) PlanAll(list []Wanted) (plan []Piece, err error) {
	slices.SortStableFunc(list, func(a, b Wanted) int {
		goA, goB := a.State == history.Absent, b.State == history.Absent
		switch {
		case goA && goB:
			return strings.Compare(b.Path, a.Path)
		case goA:
			return -1
		case goB:
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	going := map[string]bool{}
	for _, w := range list {
		if w.State == history.Absent {
			going["-"+w.Path] = true
		}
	}
	for _, w := range list {
		p, err := m.Plan(w.Path, w.State, w.Data, going)
		if err != nil {
			return nil, err
		}
		if !p.Same() {
			plan = append(plan, p)
		}
	}
	return plan, nil
}
