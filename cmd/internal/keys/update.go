package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pmxcfs/cmd/internal/host"
	"pmxcfs/cmd/internal/plan"
)

// Files of the mount.
const (
	caKeyFile    = host.Mount + "/priv/pve-root-ca.key"
	caFile       = host.Mount + "/pve-root-ca.pem"
	serialFile   = host.Mount + "/priv/pve-root-ca.srl"
	wwwKeyFile   = host.Mount + "/pve-www.key"
	ticketKey    = host.Mount + "/priv/authkey.key"
	ticketPublic = host.Mount + "/authkey.pub"
	clusterKeys  = host.Mount + "/priv/authorized_keys"
	clusterHosts = host.Mount + "/priv/known_hosts"
	vzdumpCron   = host.Mount + "/vzdump.cron"
)

// Files of the host.
const (
	rootDir       = "/root/.ssh"
	rootKey       = rootDir + "/id_rsa"
	rootConfig    = rootDir + "/config"
	rootKeys      = rootDir + "/authorized_keys"
	rootKeysOld   = rootKeys + ".org"
	systemHosts   = "/etc/ssh/ssh_known_hosts"
	sshdDropIn    = "/etc/ssh/sshd_config.d/50-pve-cluster.conf"
	cronLink      = "/etc/cron.d/vzdump"
	cronSaved     = "/root/etc_cron_vzdump.org"
	vzdumpProgram = "/usr/bin/vzdump"
)

const (
	// quorumPoll is the time between two looks whether there is quorum, and quorumTell between
	// two lines that say so.
	quorumPoll = 100 * time.Millisecond
	quorumTell = 5 * time.Second
	// keyWait is how long another process may take to make root's key.
	keyWait = time.Minute
	// changeLock is the cluster lock under which files that all nodes share are changed.
	changeLock = "pvecm-keys"
	// ticketLock is the one that access control takes.
	ticketLock = "authkey"
)

// sshCiphers are all that stock nodes offer each other: no weak ones, and fast ones first.
const sshCiphers = "Ciphers aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com\n"

const vzdumpText = `# Backup jobs of the cluster's guests, as cron runs them.
# The jobs that the web interface knows are in jobs.cfg; lines here are for old ones.

PATH="/usr/sbin:/usr/bin:/sbin:/bin"

`

// Options of Update.
type Options struct {
	Force   bool // make a new node certificate, whether or not the present one is good
	Silent  bool // tell no progress
	Unmerge bool // make the host's known_hosts a file of its own again, at once
}

// updater is one run of Update.
type updater struct {
	*host.Host
	Options
}

// Update makes whatever of keys, certificates, directories and links is missing on this
// host, and renews its certificate if that is outdated. It waits for quorum as long as ctx
// lasts.
func Update(ctx context.Context, h *host.Host, o Options) error {
	u := updater{h, o}
	if err := EnsureRootKey(ctx, h); err != nil {
		return err
	}
	if err := u.cron(); err != nil {
		return err
	}
	if err := u.protectAuthkey(); err != nil {
		return err
	}
	if err := u.awaitQuorum(ctx); err != nil {
		return err
	}
	if err := Directories(h, h.Name); err != nil {
		return err
	}
	if err := LinkAuthorizedKeys(h); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{u.ticket, u.serverKeys, u.authority, u.certificate} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := MergeRootKey(ctx, h); err != nil {
		return err
	}
	if err := WriteKnownHosts(h); err != nil {
		return err
	}
	if o.Unmerge || allNodesHaveKnownHosts(h) {
		if err := Unmerge(h); err != nil {
			return err
		}
	}
	if !h.Exists(vzdumpCron) {
		if err := h.WriteTree(vzdumpCron, []byte(vzdumpText)); err != nil {
			return err
		}
		if err := u.cron(); err != nil {
			return err
		}
	}
	for _, dir := range []string{"priv/acme", "firewall", "ha", "mapping", "sdn", "virtual-guest"} {
		if err := makeDir(h, host.Mount+"/"+dir); err != nil {
			return err
		}
	}
	return nil
}

// say tells progress.
func (u *updater) say(format string, args ...any) {
	if !u.Silent {
		u.Sayf(format, args...)
	}
}

func (u *updater) awaitQuorum(ctx context.Context) error {
	if err := u.Mounted(); err != nil {
		return err
	}
	next := u.Time().Add(quorumTell)
	for !u.Quorate() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for quorum: %w", ctx.Err())
		case <-time.After(quorumPoll):
		}
		if now := u.Time(); !now.Before(next) {
			u.say("waiting for quorum ...")
			next = now.Add(quorumTell)
		}
	}
	return nil
}

// makeDir makes a directory of the mount; another node may do so at the same time.
func makeDir(h *host.Host, path string) error {
	if err := os.Mkdir(h.Path(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Directories makes the directories of a node, if they are absent.
func Directories(h *host.Host, node string) error {
	base := host.Mount + "/nodes/" + node
	for _, dir := range []string{
		host.Mount + "/priv", host.Mount + "/nodes", base,
		base + "/lxc", base + "/qemu-server", base + "/openvz", base + "/priv",
	} {
		if err := makeDir(h, dir); err != nil {
			return err
		}
	}
	return nil
}

// protectAuthkey takes everybody else's right to read corosync's key, which joins by the
// stock tool leave open.
func (u *updater) protectAuthkey() error {
	info, err := os.Stat(u.Path(host.AuthKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	u.say("corosync's key %s could be read by others: its mode is 0400 now", host.AuthKey)
	return os.Chmod(u.Path(host.AuthKey), 0o400)
}

// cron links the cluster's cron table into the host's, where there is something to run.
func (u *updater) cron() error {
	if info, err := os.Stat(u.Path(vzdumpCron)); err != nil || !info.Mode().IsRegular() || !u.Exists(vzdumpProgram) {
		return nil
	}
	at := u.Path(cronLink)
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil
	default:
		if err := os.Rename(at, u.Path(cronSaved)); err != nil {
			return err
		}
	}
	return os.Symlink(vzdumpCron, at)
}

// EnsureRootKey makes root's ssh key and ssh's configuration, if they are absent. An existing
// private key is never replaced: its public half is derived.
func EnsureRootKey(ctx context.Context, h *host.Host) error {
	if err := h.Mkdir(rootDir, 0o700); err != nil {
		return err
	}
	// One at a time: a command is typed while the service that makes keys is at it.
	dir, err := os.Open(h.Path(rootDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := host.FlockWithin(dir, keyWait); err != nil {
		return err
	}
	if !h.Exists(rootKey + ".pub") {
		if h.Exists(rootKey) {
			out, err := h.Output(ctx, "ssh-keygen", "-y", "-P", "", "-f", h.Path(rootKey))
			if err != nil {
				return fmt.Errorf("deriving the public half of root's ssh key (a passphrase makes it useless for the cluster): %w", err)
			}
			line := append(bytes.TrimSpace(out), (" root@" + h.Name + "\n")...)
			if err := h.WriteFile(rootKey+".pub", line, 0o644); err != nil {
				return err
			}
		} else if _, err := h.Output(ctx, "ssh-keygen", "-q", "-t", "rsa", "-N", "", "-b", "4096", "-C", "root@"+h.Name, "-f", h.Path(rootKey)); err != nil {
			return fmt.Errorf("making root's ssh key: %w", err)
		}
	}
	if !h.Exists(rootConfig) {
		return h.WriteFile(rootConfig, []byte(sshCiphers), 0o640)
	}
	return nil
}

// LinkAuthorizedKeys makes root's authorized_keys a link to the cluster's file, which is
// created from it if absent. A file in the link's place is kept beside it, until
// MergeRootKey has merged it. A link to elsewhere stays.
func LinkAuthorizedKeys(h *host.Host) error {
	own, err := os.ReadFile(h.Path(rootKeys))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	created := false
	f, err := os.OpenFile(h.Path(clusterKeys), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	switch {
	case err == nil:
		_, werr := f.Write(own)
		if err := errors.Join(werr, f.Close()); err != nil {
			return errors.Join(err, os.Remove(h.Path(clusterKeys)))
		}
		created = true
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	info, err := os.Lstat(h.Path(rootKeys))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return nil
	default:
		if err := os.Rename(h.Path(rootKeys), h.Path(rootKeysOld)); err != nil {
			return err
		}
	}
	if err := h.Mkdir(rootDir, 0o700); err != nil {
		return err
	}
	if err := os.Symlink(clusterKeys, h.Path(rootKeys)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if created && h.Exists(rootKeysOld) {
		return os.Remove(h.Path(rootKeysOld))
	}
	return nil
}

// MergeRootKey enters root's public key, and what root's own file held before it became
// a link, into the cluster's authorized_keys. Nothing is written if they are there.
func MergeRootKey(ctx context.Context, h *host.Host) error {
	own, err := readIfThere(h, rootKey+".pub")
	if err != nil {
		return err
	}
	old, err := readIfThere(h, rootKeysOld)
	if err != nil {
		return err
	}
	if err := EnterKeys(ctx, h, old, own); err != nil {
		return err
	}
	if target, err := os.Readlink(h.Path(rootKeys)); err == nil && target == clusterKeys && h.Exists(rootKeysOld) {
		return os.Remove(h.Path(rootKeysOld))
	}
	return nil
}

// EnterKeys merges keys into the cluster's authorized_keys.
func EnterKeys(ctx context.Context, h *host.Host, keys ...[]byte) error {
	return ChangeKeys(ctx, h, func(text []byte) []byte {
		merged := text
		for _, k := range keys {
			merged = MergeAuthorizedKeys(merged, k, nil)
		}
		return merged
	})
}

// ChangeKeys changes the cluster's authorized_keys, which other nodes may do at the same
// time. Nothing is locked or written if nothing changes.
func ChangeKeys(ctx context.Context, h *host.Host, change func([]byte) []byte) error {
	attempt := func(write bool) (bool, error) {
		before, err := readIfThere(h, clusterKeys)
		if err != nil {
			return false, err
		}
		after := change(before)
		if bytes.Equal(before, after) {
			return false, nil
		}
		if write {
			err = h.WriteTree(clusterKeys, after)
		}
		return true, err
	}
	if needed, err := attempt(false); err != nil || !needed {
		return err
	}
	return h.ClusterLock(ctx, changeLock, func(context.Context) error {
		_, err := attempt(true)
		return err
	})
}

// WithoutKeys returns an authorized_keys file without a node's.
func WithoutKeys(text []byte, node string) []byte {
	after, n := RemoveKeys(text, KeysOf(text, node))
	if n == 0 {
		return text
	}
	return after
}

// ForgetNode removes a node's keys from the cluster's authorized_keys, where they are known
// by their comment, and from its known_hosts. It tells how many may not log in any more.
func ForgetNode(ctx context.Context, h *host.Host, node string) (removed int, err error) {
	err = ChangeKeys(ctx, h, func(text []byte) []byte {
		_, removed = RemoveKeys(text, KeysOf(text, node))
		return WithoutKeys(text, node)
	})
	if err != nil {
		return 0, err
	}
	return removed, changeHosts(h, node, func([]string, int, string) string { return "" })
}

// changeHosts has change rewrite the lines of the cluster's known_hosts that name a node: it gets
// the names of a line, which of them is the node's, and the rest of the line with its end.
func changeHosts(h *host.Host, node string, change func(names []string, at int, rest string) string) error {
	before, err := readIfThere(h, clusterHosts)
	if err != nil {
		return err
	}
	var after []byte
	for line := range bytes.Lines(before) {
		names, rest, found := strings.Cut(string(line), " ")
		list := strings.Split(names, ",")
		if at := slices.IndexFunc(list, func(name string) bool { return strings.EqualFold(name, node) }); found && at >= 0 {
			line = []byte(change(list, at, rest))
		}
		after = append(after, line...)
	}
	if bytes.Equal(before, after) {
		return nil
	}
	return h.WriteTree(clusterHosts, after)
}

// RenameNode has root's ssh key, and what the cluster knows of a node's, say the node's new
// name. It is called on that node.
func RenameNode(ctx context.Context, h *host.Host, old, new string) error {
	own, err := readIfThere(h, rootKey+".pub")
	if err != nil {
		return err
	}
	if after := renameKeys(own, old, new); !bytes.Equal(own, after) {
		if err := h.WriteFile(rootKey+".pub", after, 0o644); err != nil {
			return err
		}
	}
	if err := ChangeKeys(ctx, h, func(text []byte) []byte { return renameKeys(text, old, new) }); err != nil {
		return err
	}
	return changeHosts(h, old, func(names []string, at int, rest string) string {
		names[at] = strings.ToLower(new)
		return strings.Join(names, ",") + " " + rest
	})
}

// renameKeys gives the keys of a node's root their comment with its new name.
func renameKeys(text []byte, old, new string) []byte {
	lines := textLines(text)
	changed := false
	for i, line := range lines {
		if rest, found := strings.CutSuffix(strings.TrimRight(line, " \t"), " root@"+old); found && publicKey(line) != "" {
			lines[i], changed = rest+" root@"+new, true
		}
	}
	if !changed {
		return text
	}
	return joined(lines)
}

// readIfThere reads a file; nil if there is none.
func readIfThere(h *host.Host, path string) ([]byte, error) {
	b, err := h.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// hostKeys are the host's public ssh keys.
func hostKeys(h *host.Host) ([][]byte, error) {
	paths, err := filepath.Glob(h.Path("/etc/ssh/ssh_host_*_key.pub"))
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, b)
	}
	return keys, nil
}

func knownHostsFile(node string) string { return host.Mount + "/nodes/" + node + "/ssh_known_hosts" }

// WriteKnownHosts writes the file by which other nodes know this host's ssh keys, if they
// have changed.
func WriteKnownHosts(h *host.Host) error {
	keys, err := hostKeys(h)
	if err != nil {
		return err
	}
	want := NodeKnownHosts(h.Name, keys...)
	if len(want) == 0 {
		h.Warnf("this host has no ssh host key: other nodes can't reach it over ssh until \"ssh-keygen -A\" has made some and \"pvecm updatecerts\" was run again")
		return nil
	}
	have, err := readIfThere(h, knownHostsFile(h.Name))
	if err != nil || bytes.Equal(have, want) {
		return err
	}
	return h.WriteTree(knownHostsFile(h.Name), want)
}

// MergeClusterHosts enters this host into the known_hosts that all nodes have in common, for
// stock nodes that still look there.
func MergeClusterHosts(ctx context.Context, h *host.Host) error {
	rsa, err := readIfThere(h, "/etc/ssh/ssh_host_rsa_key.pub")
	if err != nil {
		return err
	}
	key := ""
	for _, line := range textLines(rsa) {
		if key = publicKey(line); key != "" {
			break
		}
	}
	if key == "" {
		return nil
	}
	address, err := h.Address()
	if err != nil {
		return err
	}
	var system []byte
	if info, err := os.Lstat(h.Path(systemHosts)); err == nil && info.Mode().IsRegular() {
		if system, err = h.ReadFile(systemHosts); err != nil {
			return err
		}
	}
	return h.ClusterLock(ctx, changeLock, func(context.Context) error {
		before, err := readIfThere(h, clusterHosts)
		if err != nil {
			return err
		}
		after := MergeKnownHosts(before, system, h.Name, address.String(), key)
		if bytes.Equal(before, after) {
			return nil
		}
		return h.WriteTree(clusterHosts, after)
	})
}

// allNodesHaveKnownHosts tells whether every node of the cluster has a file of its own.
func allNodesHaveKnownHosts(h *host.Host) bool {
	nodes, err := os.ReadDir(h.Path(host.Mount + "/nodes"))
	if err != nil {
		return false
	}
	for _, n := range nodes {
		if n.IsDir() && !h.Exists(knownHostsFile(n.Name())) {
			return false
		}
	}
	return true
}

// Unmerge makes the host's known_hosts a file of its own, if it is a link to the cluster's.
func Unmerge(h *host.Host) error {
	target, err := os.Readlink(h.Path(systemHosts))
	if err != nil || target != clusterHosts {
		return nil
	}
	text, err := readIfThere(h, clusterHosts)
	if err != nil {
		return err
	}
	return h.WriteFile(systemHosts, text, 0o644)
}

// AllowRootLogin lets root log in with a key, which nodes need of each other. It changes
// nothing if that is so already, and otherwise adds a file of its own to sshd's
// configuration.
func AllowRootLogin(ctx context.Context, h *host.Host) error {
	if !h.Exists("/usr/sbin/sshd") {
		h.Warnf("there is no ssh server on this host: other nodes can't reach it, which migrations and an external vote need")
		return nil
	}
	may := func() (bool, error) {
		out, err := h.Output(ctx, "/usr/sbin/sshd", "-T")
		return RootMayLogIn(out), err
	}
	ok, err := may()
	if err != nil {
		h.Warnf("whether root may log in over ssh is unknown, and sshd's configuration stays as it is: %v", err)
		return nil
	}
	if ok {
		return nil
	}
	if err := h.Mkdir(filepath.Dir(sshdDropIn), 0o755); err != nil {
		return err
	}
	text := "# Nodes of a cluster reach each other as root, with keys.\nPermitRootLogin prohibit-password\nPubkeyAuthentication yes\n"
	if err := h.WriteFile(sshdDropIn, []byte(text), 0o644); err != nil {
		return err
	}
	if ok, err = may(); err != nil || !ok {
		h.Warnf("root may still not log in over ssh with a key: %s is there, but something in /etc/ssh/sshd_config wins over it", sshdDropIn)
		return nil
	}
	h.Sayf("root may log in over ssh with a key now: %s", sshdDropIn)
	return h.Run(ctx, "systemctl", "reload-or-restart", "sshd")
}

// ticket makes the key that signs login tickets.
func (u *updater) ticket(ctx context.Context) error {
	if u.Exists(ticketKey) {
		return nil
	}
	return u.ClusterLock(ctx, ticketLock, func(context.Context) error {
		if u.Exists(ticketKey) { // another node was first
			return nil
		}
		u.say("making the key for login tickets")
		key, err := NewKey(nodeBits)
		if err != nil {
			return err
		}
		public, err := PublicKey(key)
		if err != nil {
			return err
		}
		if err := u.WriteTree(ticketPublic, public); err != nil {
			return err
		}
		return u.WriteTree(ticketKey, key)
	})
}

// serverKeys makes the keys of the web server.
func (u *updater) serverKeys(ctx context.Context) error {
	if !u.Exists(wwwKeyFile) {
		if err := u.ClusterLock(ctx, changeLock, func(context.Context) error { return u.newKey(wwwKeyFile, nodeBits) }); err != nil {
			return err
		}
	}
	return u.newKey(u.nodeFile("pve-ssl.key"), nodeBits)
}

func (u *updater) nodeFile(name string) string { return host.Mount + "/nodes/" + u.Name + "/" + name }

// newKey makes a key in a file, unless that exists.
func (u *updater) newKey(path string, bits int) error {
	if u.Exists(path) {
		return nil
	}
	key, err := NewKey(bits)
	if err != nil {
		return err
	}
	return u.WriteTree(path, key)
}

// authority makes the cluster's CA.
func (u *updater) authority(ctx context.Context) error {
	if u.Exists(caKeyFile) && u.Exists(caFile) {
		return nil
	}
	u.say("making the cluster's certificate authority")
	fresh, err := NewKey(caBits) // outside the lock: this takes its time
	if err != nil {
		return err
	}
	return u.ClusterLock(ctx, changeLock, func(context.Context) error {
		if !u.Exists(caKeyFile) {
			if err := u.WriteTree(caKeyFile, fresh); err != nil {
				return err
			}
		} else if u.Exists(caFile) {
			return nil
		}
		key, err := u.ReadFile(caKeyFile)
		if err != nil {
			return err
		}
		uuid, err := newUUID()
		if err != nil {
			return err
		}
		ca, err := NewCA(key, uuid, u.Time())
		if err != nil {
			return err
		}
		return u.WriteTree(caFile, ca)
	})
}

func newUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// certificate makes the node's certificate if there is none, if it is outdated or if it is
// asked for.
func (u *updater) certificate(ctx context.Context) error {
	names, err := NamesOf(u.Host)
	if err != nil {
		return err
	}
	ca, err := u.ReadFile(caFile)
	if err != nil {
		return err
	}
	key, err := u.ReadFile(u.nodeFile("pve-ssl.key"))
	if err != nil {
		return err
	}
	have, err := readIfThere(u.Host, u.nodeFile("pve-ssl.pem"))
	if err != nil {
		return err
	}
	switch why := Outdated(have, key, ca, names, u.Time()); {
	case why != "":
		u.say("making this node's certificate: %s", why)
	case u.Force:
		u.say("making this node's certificate")
	default:
		return nil
	}
	return u.ClusterLock(ctx, changeLock, func(context.Context) error {
		caKey, err := u.ReadFile(caKeyFile)
		if err != nil {
			return err
		}
		serial, err := u.serial()
		if err != nil {
			return err
		}
		cert, err := NewNodeCertificate(ca, caKey, key, names, serial, u.Time())
		if err != nil {
			return plan.Fail(plan.Failed, "certificate", "see /etc/pve/pve-root-ca.pem and priv/pve-root-ca.key", "making the certificate of %s: %v", u.Name, err)
		}
		return u.WriteTree(u.nodeFile("pve-ssl.pem"), cert)
	})
}

// serial takes the next serial number. The cluster lock is held.
func (u *updater) serial() (*big.Int, error) {
	last, err := readIfThere(u.Host, serialFile)
	if err != nil {
		return nil, err
	}
	serial, text, err := NextSerial(last)
	if err != nil { // a number by chance is as good, and the file begins anew
		u.Warnf("%s: %v; it begins anew with a random number", serialFile, err)
		if serial, err = RandomSerial(); err != nil {
			return nil, err
		}
		text = fmt.Appendf(nil, "%032X\n", serial)
	}
	return serial, u.WriteTree(serialFile, text)
}

// NamesOf returns the names that this node's certificate is to be for.
func NamesOf(h *host.Host) (Names, error) {
	address, err := h.Address()
	if err != nil {
		return Names{}, err
	}
	resolv, err := readIfThere(h, "/etc/resolv.conf")
	return Names{Node: h.Name, Domain: SearchDomain(resolv), Address: address}, err
}

// ChildEnv is set in the environment of the process that RunLimited starts.
const ChildEnv = "PVECM_UPDATECERTS_CHILD"

// RunLimit is how long that process may take: less than the 90 s that a unit may take to
// start.
const RunLimit = 80 * time.Second

// RunLimited runs this program again with the same arguments and ChildEnv set, and kills it
// after limit: a call in a mount that hangs can't be interrupted, not even by the end of the
// process that made it. So that process is not waited for then.
func RunLimited(h *host.Host, args []string, limit time.Duration) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "pvecm"
	cmd.Env = append(os.Environ(), ChildEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() > 0 { // it has said why
			return &plan.Error{Code: plan.Code(exit.ExitCode())}
		}
		return err
	case <-time.After(limit):
		_ = cmd.Process.Kill()
		return plan.Fail(plan.Timeout, "timeout", "is there quorum? does /etc/pve answer? then run \"pvecm updatecerts\" again",
			"keys and certificates are not up to date: that took more than %v and was ended", limit)
	}
}
