package testutil

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds the program of a package at a path. The go command keeps programs that it has
// linked for run, and not those for build; several test packages want the same one.
func Build(pkg, path string, race bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	args := []string{"run", "-exec", "cp"}
	if race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, pkg, path)...).CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return nil
}
