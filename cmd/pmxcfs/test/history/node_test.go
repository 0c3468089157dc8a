package history

import (
	"errors"
	"io/fs"
	"os"
	"sync/atomic"

	"pmxcfs/contrib/lab/labtest"
)

// node is a host with its daemon.
type node struct {
	*labtest.Node
	acked atomic.Int64 // changes that the clients know to be done
}

// kill ends the daemon without order. The kernel may hold it for a client's request
// that it will not answer any more: that isn't left to the next start, as a test
// that failed here would have none.
func (n *node) kill() {
	n.T.Helper()
	n.Kill()
	n.Free()
}

// synced waits until the node takes changes, which it does as a synchronised
// member of a quorate cluster only.
func (n *node) synced() {
	n.T.Helper()
	n.Eventually("it takes changes", func() error {
		name := n.Path("probes/" + n.String())
		err := os.Mkdir(name, 0o755)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Remove(name)
		}
		return err
	})
}
