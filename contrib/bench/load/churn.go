package load

import (
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"

	"pmxcfs/contrib/bench/tree"
)

// Churn is the operation that keeps changing a tree of a known shape, which
// stays as large as it is: files are overwritten, at once or in small pieces,
// and directories come and go.
const Churn = "churn"

// churn is what one client of it needs.
type churn struct {
	shape *tree.Shape
	files []path
	data  []byte
	rand  *rand.Rand
	dir   path
}

func (w *worker) prepareChurn(mount string, i int, shape *tree.Shape) {
	c := &churn{
		shape: shape,
		data:  tree.Content(shape.Size),
		rand:  rand.New(rand.NewPCG(1, uint64(i))),
		dir:   newPath("%s/%s", mount, "churn"+strconv.Itoa(i)),
	}
	for n := range shape.Files {
		c.files = append(c.files, newPath("%s/%s", mount, shape.Path(n)))
	}
	w.churn = c
}

func (w *worker) churnOnce() {
	c := w.churn
	file := c.files[c.rand.IntN(len(c.files))]
	switch c.rand.IntN(10) {
	case 0:
		mkdir(c.dir)
		unlink(c.dir, unix.AT_REMOVEDIR)
	case 1:
		w.overwrite(file, c.data, chunk)
	default:
		w.overwrite(file, c.data, len(c.data))
	}
}
