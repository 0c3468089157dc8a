package look

import (
	"os"
	"testing"

	"pmxcfs/contrib/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.MainWithoutRace(m)) }
