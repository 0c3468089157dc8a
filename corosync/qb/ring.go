package qb

import (
	"errors"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Layout of a ring's header file. Positions are in words of 4 bytes.
const (
	offWritePos   = 0                        // u32, the writer's next
	offReadPos    = 4                        // u32, the reader's next
	offWords      = 8                        // u32, length of the ring
	offHeaderPath = 12                       // of the header file; a client whose server is gone unlinks it
	offDataPath   = offHeaderPath + pathSize // of the data file, which the client opens
	offRefs       = offDataPath + pathSize   // i32
	offSemaphore  = offRefs + 4              // a sem_t of 32 bytes, which counts chunks

	// Behind it is an i32 of flow control, of which 0 lets the client send, and some padding.
	headerSize = offSemaphore + 32 + 12
)

// A sem_t on 64-bit machines, shared by processes (glibc 2.21 and later): the value in the lower
// half of a u64, the number of waiters in its upper half, and the flags of futexes to be
// turned over.
const (
	offSemFlags = offSemaphore + 8
	semShared   = 128 // FUTEX_PRIVATE_FLAG
	semMaxValue = 1<<31 - 1
)

// A chunk is its length in bytes, a mark, and the bytes, rounded up to words.
const (
	chunkWords  = 2
	chunkMargin = 3 // words that the writer leaves free

	markWritten = 0xA1A1A1A1
	markRead    = 0xD0D0D0D0
)

// ringWords returns the length in words of the rings of a connection.
func ringWords(bufferSize int) uint32 {
	page := unix.Getpagesize()
	return uint32((bufferSize+13+page-1)/page*page) / 4
}

// What can be wrong with a ring.
var (
	errFull    = errors.New("no room in the response ring")
	errCorrupt = errors.New("the client has damaged its ring")
	errGone    = errors.New("the client has taken its shared memory away")
)

// shared is the memory of a ring. The client can write all of it, at any moment, and take it away.
// So nothing here is read but single words, once, by load, and bytes, once, into a copy;
// and every position is the caller's own.
type shared struct {
	header, data []byte
}

func word(b []byte, off int) *uint32 { return (*uint32)(unsafe.Pointer(&b[off : off+4][0])) }

func (m *shared) mark(pos, words uint32) *uint32 {
	return word(m.data, int((pos+1)%words)*4)
}

// copyOut copies bytes from a position on, around the ring's end.
func (m *shared) copyOut(dst []byte, pos uint32) {
	n := copy(dst, m.data[int(pos)*4:])
	copy(dst[n:], m.data)
}

// copyIn copies bytes to off, in bytes from a position that may lie beyond the ring's end.
func (m *shared) copyIn(off int, src []byte) {
	off %= len(m.data)
	n := copy(m.data[off:], src)
	copy(m.data, src[n:])
}

// guard calls f, which touches a client's memory. The client can truncate the files behind it: the
// fault (SIGBUS) becomes errGone.
func guard(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			// A fault has an address; mistakes of our own have none.
			if _, ok := r.(interface{ Addr() uintptr }); !ok {
				panic(r)
			}
			err = errGone
		}
	}()
	return f()
}

// A reader takes chunks out of the request ring. Where the next one is and how long the
// ring is are its own: the client's idea of them is told, not asked.
type reader struct {
	shared
	words uint32
	pos   uint32
}

// next copies the next chunk into buf, or into a new slice if that is too small. It must be
// there: the client has said so.
func (r *reader) next(buf []byte) (chunk []byte, err error) {
	err = guard(func() error {
		mark := r.mark(r.pos, r.words)
		if atomic.LoadUint32(mark) != markWritten {
			return errCorrupt
		}
		length := word(r.data, int(r.pos)*4)
		n := int64(atomic.LoadUint32(length))
		if n > int64(r.words-chunkWords-1)*4 {
			return errCorrupt
		}
		if n <= int64(cap(buf)) {
			chunk = buf[:n]
		} else {
			chunk = make([]byte, n)
		}
		r.copyOut(chunk, (r.pos+chunkWords)%r.words)
		r.pos = step(r.pos, uint32(n), r.words)
		atomic.StoreUint32(length, 0)
		atomic.StoreUint32(mark, markRead)
		atomic.StoreUint32(word(r.header, offReadPos), r.pos)
		take(r.header)
		return nil
	})
	return chunk, err
}

// A writer puts chunks into the response ring. Where the next one goes is its own; the client
// says how far it has read, and is believed only within what was written.
type writer struct {
	shared
	words uint32
	pos   uint32
	used  uint32 // words, as of the last look
}

// write puts a chunk, given in two parts, into the ring. errFull: there is no room now.
func (w *writer) write(head, body []byte) error {
	return guard(func() error {
		read := atomic.LoadUint32(word(w.header, offReadPos))
		if read >= w.words {
			return errCorrupt
		}
		used := (w.pos + w.words - read) % w.words
		if used > w.used {
			return errCorrupt // it has read what was never there
		}
		w.used = used
		n := uint32(len(head) + len(body))
		need := chunkWords + (n+3)/4
		if w.words-used < need+chunkMargin {
			return errFull
		}
		at := int(w.pos) * 4
		w.copyIn(at+4*chunkWords, head)
		w.copyIn(at+4*chunkWords+len(head), body)
		atomic.StoreUint32(word(w.data, at), n)
		mark := w.mark(w.pos, w.words)
		w.pos = step(w.pos, n, w.words)
		w.used += need
		atomic.StoreUint32(word(w.header, offWritePos), w.pos)
		atomic.StoreUint32(mark, markWritten)
		post(w.header)
		return nil
	})
}

// step returns the position after a chunk of n bytes.
func step(pos, n, words uint32) uint32 {
	return uint32((uint64(pos) + chunkWords + (uint64(n)+3)/4) % uint64(words))
}

func semaphore(header []byte) *uint64 {
	return (*uint64)(unsafe.Pointer(&header[offSemaphore : offSemaphore+8][0]))
}

// post counts a semaphore up and wakes a waiter, as sem_post(3) does.
func post(header []byte) {
	sem := semaphore(header)
	if atomic.AddUint64(sem, 1)>>32 != 0 {
		wake(unsafe.Pointer(sem))
	}
}

// wake wakes one who waits for a word shared with another process.
//
//	long syscall(SYS_futex, uint32_t *uaddr, FUTEX_WAKE, uint32_t val);
func wake(addr unsafe.Pointer) {
	const futexWake = 1
	// It doesn't block, and an error (the memory is gone) shows at the next access.
	_, _, _ = syscall.RawSyscall(unix.SYS_FUTEX, uintptr(addr), futexWake, 1)
}

// take counts a semaphore down, as the reader of a ring does, unless it is 0 or the client
// changes it at the same moment: nobody waits for this one, it only must not overflow, in
// years.
func take(header []byte) {
	sem := semaphore(header)
	if v := atomic.LoadUint64(sem); v&semMaxValue != 0 {
		atomic.CompareAndSwapUint64(sem, v, v-1)
	}
}

// initHeader fills in a new ring's header.
func initHeader(header []byte, words uint32, headerPath, dataPath string) {
	*word(header, offWords) = words
	copy(header[offHeaderPath:][:pathSize-1], headerPath)
	copy(header[offDataPath:][:pathSize-1], dataPath)
	*word(header, offRefs) = 1
	*word(header, offSemFlags) = semShared
}
