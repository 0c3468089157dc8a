package history

import (
	"flag"
	"os"
	"testing"

	"pmxcfs/contrib/lab/labtest"
)

var (
	seedFlag = flag.Uint64("history.seed", 0, "record the history of this `seed` only")
	runsFlag = flag.Int("history.runs", 1, "how many histories to record")
	timeFlag = flag.Duration("history.time", 0, "how long to go on disturbing a cluster; 0: once in each way")
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
