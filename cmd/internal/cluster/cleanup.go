package cluster

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
)

// backupDir is where archives of what is removed from the tree are.
const backupDir = "/var/lib/pve-cluster/backup"

// nodeDir is a node's directory in the tree.
func nodeDir(name string) string { return host.Mount + "/nodes/" + name }

// configured are the guests whose configurations are in a node's directory.
func configured(h *host.Host, name string) (guests []string) {
	for _, kind := range []string{"qemu-server", "lxc", "openvz"} {
		list, _ := filepath.Glob(h.Path(nodeDir(name) + "/" + kind + "/*.conf"))
		for _, path := range list {
			guests = append(guests, strings.TrimSuffix(filepath.Base(path), ".conf"))
		}
	}
	return guests
}

// dirStep says what becomes of a removed node's directory.
func (o DelOptions) dirStep(h *host.Host, r *plan.Report, name string) {
	guests := configured(h, name)
	switch {
	case !h.Exists(nodeDir(name)):
	case o.KeepDir:
		r.Step("%s stays", nodeDir(name))
	case o.PurgeDir:
		r.Step("%s is archived in %s and removed, with the configurations of %d guests", nodeDir(name), backupDir, len(guests))
	case len(guests) > 0:
		r.Warn("leftovers", "move what is needed to another node's directories; --purge-dir archives and removes it", "%s stays, since it holds the configurations of guests: %s", nodeDir(name), brief(guests))
	default:
		r.Step("%s is removed", nodeDir(name))
	}
}

// cleanUp removes what a node that was removed has left in the tree. It is no part of the
// removal: what goes wrong is a warning.
func (s Services) cleanUp(ctx context.Context, h *host.Host, o DelOptions, name string) {
	if s.ForgetKeys != nil && !o.SpareKeys {
		n, err := s.ForgetKeys(ctx, h, name)
		switch {
		case err != nil:
			h.Warnf("the ssh keys of %s: %v", name, err)
		case n == 0:
			h.Sayf("No ssh key of root@%s was found in priv/authorized_keys", name)
		default:
			h.Sayf("The ssh keys of %s are removed", name)
		}
	}
	dir := nodeDir(name)
	if o.KeepDir || !h.Exists(dir) || !o.PurgeDir && len(configured(h, name)) > 0 {
		return
	}
	if o.PurgeDir {
		path, err := archive(h, name)
		if err != nil {
			h.Warnf("%s stays, since it can't be archived: %v", dir, err)
			return
		}
		h.Sayf("%s is archived in %s", dir, path)
	}
	if err := os.RemoveAll(h.Path(dir)); err != nil {
		h.Warnf("%v", err)
		return
	}
	h.Sayf("%s is removed", dir)
}

// NodeLeft removes the ssh keys of a node that has left.
func NodeLeft(ctx context.Context, h *host.Host, s Services, name string) error {
	f, err := Read(h)
	if err != nil {
		return err
	}
	if f.Node(name) != nil {
		return plan.Fail(plan.Refused, "is-member", "pvecm delnode "+name, "node %s is one of the cluster", name)
	}
	_, err = s.ForgetKeys(ctx, h, name)
	return err
}

// archive packs a node's directory into a file among the backups.
func archive(h *host.Host, name string) (string, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	t := tar.NewWriter(z)
	base := h.Path(host.Mount + "/nodes")
	err := filepath.WalkDir(filepath.Join(base, name), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		header, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(base, path); err != nil {
			return err
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
			header.Size = int64(len(content))
		}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		_, err = t.Write(content)
		return err
	})
	if err := errors.Join(err, t.Close(), z.Close()); err != nil {
		return "", err
	}
	if err := h.Mkdir(backupDir, 0o700); err != nil {
		return "", err
	}
	path := fmt.Sprintf("%s/node-%s-%d.tar.gz", backupDir, name, h.Time().Unix())
	return path, h.WriteFile(path, packed.Bytes(), 0o600)
}

// disarm keeps a node that runs from coming back with the configuration that it has. It
// is asked over ssh, and may be out of reach.
const disarm = "rm -f /etc/corosync/corosync.conf /etc/corosync/authkey; systemctl disable --quiet corosync; systemctl stop corosync"

// stopLimit is how long a node may take to stop.
const stopLimit = 20 * time.Second

// stopNode ends corosync on a node that runs; with ask it is told to over ssh first.
func (s Services) stopNode(ctx context.Context, h *host.Host, name, ip string, id uint32, ask bool) {
	if ask {
		limited, cancel := context.WithTimeout(ctx, stopLimit)
		_, err := h.Output(limited, append(h.SSH(name, ip, "-o", "ConnectTimeout=5"), "--", disarm)...)
		cancel()
		if err == nil {
			return
		}
		h.Warnf("node %s can't be told to stop, so never start it again with its present configuration: %v", name, err)
	}
	if s.Kill == nil || id == 0 {
		return
	}
	if err := s.Kill(id); err != nil {
		h.Warnf("corosync on %s was not ended: %v", name, err)
	}
}
