package cluster

import (
	"os"
	"testing"

	"pmxcfs/contrib/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// The tests are about clusters and their nodes.
type (
	cluster = labtest.Cluster
	node    = labtest.Node
	request = labtest.Request
)
