package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// faultFS is a directory in which calls can be made to fail, and that remembers
// what has been synced. It sees every call, whoever makes it: SQLite, or the
// daemon itself, which does not go through the C library.
type faultFS struct {
	dir  string // where it is mounted
	back string // where the files are

	mu     sync.Mutex
	rule   func(call, name string) syscall.Errno // nil: nothing fails
	synced map[string][]byte                     // contents that have reached the disk
	later  map[string][]faultWrite               // writes after that
	syncs  map[string]int
}

type faultWrite struct {
	offset int64
	data   []byte
}

// newFaultFS mounts one for the length of the test.
func newFaultFS(t *testing.T) *faultFS {
	t.Helper()
	needLab(t)
	f := &faultFS{dir: t.TempDir(), back: t.TempDir(),
		synced: map[string][]byte{}, later: map[string][]faultWrite{}, syncs: map[string]int{}}
	root, err := fs.NewLoopbackRoot(f.back)
	must(t, err)
	server, err := fs.Mount(f.dir, &faultNode{root.(*fs.LoopbackNode), f}, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "faultfs", Name: "faultfs", MaxWrite: 1 << 20, DirectMount: true},
	})
	must(t, err)
	t.Cleanup(func() {
		f.fail(nil)
		unmountAll(t, f.dir)
		server.Wait()
	})
	return f
}

// fail sets what fails from now on: the errno for a call ("write", "fsync",
// "truncate", "create") on a file.
func (f *faultFS) fail(rule func(call, name string) syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rule = rule
}

// check returns what a call on a file answers. f.mu is held.
func (f *faultFS) check(call, name string) syscall.Errno {
	if f.rule == nil {
		return 0
	}
	return f.rule(call, name)
}

// synchronised returns how often a file was synced.
func (f *faultFS) synchronised(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.syncs[name]
}

// powerCut writes to dir what the disk might hold after a power cut now: what
// was synced, and any of the writes after that.
func (f *faultFS) powerCut(t *testing.T, rnd *rand.Rand, dir string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, content := range f.synced {
		content = append([]byte(nil), content...)
		for _, w := range f.later[name] {
			if rnd.IntN(2) == 0 {
				content = append(content, make([]byte, max(0, int(w.offset)+len(w.data)-len(content)))...)
				copy(content[w.offset:], w.data)
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

type faultNode struct {
	*fs.LoopbackNode
	f *faultFS
}

// WrapChild makes every node one of ours.
func (n *faultNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultNode{ops.(*fs.LoopbackNode), n.f}
}

func (n *faultNode) name() string { return filepath.Base(n.Path(nil)) }

func (n *faultNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, out, errno := n.LoopbackNode.Open(ctx, flags)
	return n.f.wrap(n.name(), h), out, errno
}

func (n *faultNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.f.mu.Lock()
	errno := n.f.check("create", name)
	n.f.mu.Unlock()
	if errno != 0 {
		return nil, nil, 0, errno
	}
	inode, h, open, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.f.wrap(name, h), open, errno
}

func (n *faultNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, ok := in.GetSize(); ok {
		n.f.mu.Lock()
		errno := n.f.check("truncate", n.name())
		n.f.mu.Unlock()
		if errno != 0 {
			return errno
		}
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

// Unlink counts as done at once: it is the contents that get lost here.
func (n *faultNode) Unlink(ctx context.Context, name string) syscall.Errno {
	n.f.mu.Lock()
	delete(n.f.synced, name)
	delete(n.f.later, name)
	n.f.mu.Unlock()
	return n.LoopbackNode.Unlink(ctx, name)
}

// wrap puts an open file's calls under f's rule.
func (f *faultFS) wrap(name string, h fs.FileHandle) fs.FileHandle {
	if file, ok := h.(*fs.LoopbackFile); ok {
		return &faultFile{file, f, name}
	}
	return h
}

type faultFile struct {
	*fs.LoopbackFile
	f    *faultFS
	name string
}

// PassthroughFd keeps the kernel from going to the file without us.
func (h *faultFile) PassthroughFd() (int, bool) { return 0, false }

func (h *faultFile) Write(ctx context.Context, data []byte, offset int64) (uint32, syscall.Errno) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if errno := h.f.check("write", h.name); errno != 0 {
		return 0, errno
	}
	if !strings.HasSuffix(h.name, "-shm") {
		h.f.later[h.name] = append(h.f.later[h.name], faultWrite{offset, append([]byte(nil), data...)})
	}
	return h.LoopbackFile.Write(ctx, data, offset)
}

func (h *faultFile) Fsync(_ context.Context, _ uint32) syscall.Errno {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if errno := h.f.check("fsync", h.name); errno != 0 {
		return errno
	}
	content, err := os.ReadFile(filepath.Join(h.f.back, h.name))
	if err != nil {
		return syscall.EIO
	}
	h.f.synced[h.name], h.f.later[h.name] = content, nil
	h.f.syncs[h.name]++
	return 0
}
