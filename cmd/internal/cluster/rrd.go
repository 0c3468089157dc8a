package cluster

import (
	"bufio"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
)

const (
	rrdDir         = "/var/lib/rrdcached/db"
	rrdSocket      = "/run/rrdcached.sock"
	rrdSocketLimit = 10 * time.Second
)

// moveRRD gives the files with a node's load and its storages' sizes, of all formats, the
// node's new name. What is there by that name already is of an earlier node, or of the first
// seconds under the new name, and is replaced.
func moveRRD(h *host.Host, old, new string) error {
	families, err := os.ReadDir(h.Path(rrdDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, family := range families {
		name := family.Name()
		if !family.IsDir() || !strings.HasPrefix(name, "pve") || !strings.Contains(name, "-node") && !strings.Contains(name, "-storage") {
			continue
		}
		from, to := filepath.Join(h.Path(rrdDir), name, old), filepath.Join(h.Path(rrdDir), name, new)
		if _, err := os.Lstat(from); err != nil {
			continue
		}
		// rrdcached holds samples back for files by their names.
		tellRRDCached(h, "FLUSH", from)
		tellRRDCached(h, "FORGET", to)
		errs = append(errs, os.RemoveAll(to), os.Rename(from, to))
		for _, path := range filesBelow(to) {
			tellRRDCached(h, "FORGET", filepath.Join(from, strings.TrimPrefix(path, to)))
		}
	}
	return errors.Join(errs...)
}

// filesBelow are a file, or those in a directory.
func filesBelow(path string) (list []string) {
	_ = filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, at)
		}
		return nil
	})
	return list
}

// tellRRDCached sends a command about each file of a path to rrdcached, if that runs. It is
// about samples of the last minutes: that it can't is no reason to stop.
func tellRRDCached(h *host.Host, command, path string) {
	files := filesBelow(path)
	if len(files) == 0 {
		files = []string{path}
	}
	conn, err := net.DialTimeout("unix", h.Path(rrdSocket), rrdSocketLimit)
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(rrdSocketLimit)) != nil {
		return
	}
	answers := bufio.NewReader(conn)
	for _, file := range files {
		line := command + " " + strings.NewReplacer(`\`, `\\`, " ", `\ `).Replace(file) + "\n"
		if _, err := conn.Write([]byte(line)); err != nil {
			return
		}
		if _, err := answers.ReadString('\n'); err != nil {
			return
		}
	}
}
