package keys

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	recordedAt = time.Date(2026, 11, 30, 13, 49, 5, 0, time.UTC)
	node1      = Names{Node: "node1", Domain: "lab.example", Address: netip.MustParseAddr("10.99.0.1")}
)

// made are a CA and keys that all tests share, since RSA takes its time.
var made = sync.OnceValues(func() (m struct{ caKey, ca, key, cert []byte }, err error) {
	if m.caKey, err = NewKey(caBits); err != nil {
		return m, err
	}
	if m.ca, err = NewCA(m.caKey, "UUID", recordedAt); err != nil {
		return m, err
	}
	if m.key, err = NewKey(nodeBits); err != nil {
		return m, err
	}
	m.cert, err = NewNodeCertificate(m.ca, m.caKey, m.key, node1, big.NewInt(1), recordedAt)
	return m, err
})

// plain is what "openssl x509 -text" says of a certificate, without what is by chance.
func plain(t *testing.T, cert []byte) string {
	t.Helper()
	cmd := exec.Command("openssl", "x509", "-noout", "-text")
	cmd.Stdin = strings.NewReader(string(cert))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	return withoutChance(string(out))
}

var (
	longHex = regexp.MustCompile(`(?m)^ +(?:[0-9a-fA-F]{2}:)+(?:[0-9a-fA-F]{2})?\n`)
	serial  = regexp.MustCompile(`(?m)(Serial Number:)\s*$`)
)

func withoutChance(s string) string {
	return strings.TrimSpace(serial.ReplaceAllString(longHex.ReplaceAllString(s, ""), "$1"))
}

func TestCertificatesAreLikeTheRecordedOnes(t *testing.T) {
	b, err := os.ReadFile("testdata/updatecerts-first.certs")
	if err != nil {
		t.Fatal(err)
	}
	m, err := made()
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(b)[1:], "\nCertificate:")
	for i, want := range []string{"C" + first, "Certificate:" + second} {
		got := plain(t, [][]byte{m.ca, m.cert}[i])
		if want = withoutChance(want); got != want {
			t.Errorf("certificate %d:\n%s\nwant\n%s", i, got, want)
		}
	}
}

func TestNodesCertificateIsAcceptedForItsNames(t *testing.T) {
	m, err := made()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(m.ca) {
		t.Fatal("the CA is not taken")
	}
	c, err := ParseCertificate(m.cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "10.99.0.1", "node1", "node1.lab.example"} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: recordedAt}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, at := range []time.Duration{-day, 728 * day} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, DNSName: "node1", CurrentTime: recordedAt.Add(at)}); err != nil {
			t.Errorf("after %v: %v", at, err)
		}
	}
}

func TestCertificateEndsBeforeItsCA(t *testing.T) {
	m, err := made()
	if err != nil {
		t.Fatal(err)
	}
	for left, days := range map[int]int{3000: 730, 733: 730, 732: 730, 731: 729, 100: 98, 14: 12} {
		now := recordedAt.Add(-backdate + caDays*day - time.Duration(left)*day)
		cert, err := NewNodeCertificate(m.ca, m.caKey, m.key, node1, big.NewInt(9), now)
		if err != nil {
			t.Fatalf("%d days left: %v", left, err)
		}
		c, _ := ParseCertificate(cert)
		if got := int(c.NotAfter.Sub(c.NotBefore) / day); got != days {
			t.Errorf("%d days of the CA left: %d days, want %d", left, got, days)
		}
	}
	if _, err := NewNodeCertificate(m.ca, m.caKey, m.key, node1, big.NewInt(9), recordedAt.Add(-backdate+caDays*day-13*day)); err == nil || !strings.Contains(err.Error(), "in 13 days") {
		t.Errorf("a CA that ends in 13 days signs: %v", err)
	}
}

func TestOutdatedCertificatesAreSeen(t *testing.T) {
	m, err := made()
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := NewKey(nodeBits)
	if err != nil {
		t.Fatal(err)
	}
	otherCA, err := NewCA(otherKey, "other", recordedAt)
	if err != nil {
		t.Fatal(err)
	}
	sameName, err := NewCA(otherKey, "UUID", recordedAt)
	if err != nil {
		t.Fatal(err)
	}
	renamed, moved, noDomain := node1, node1, node1
	renamed.Node, moved.Address, noDomain.Domain = "node9", netip.MustParseAddr("10.99.0.9"), ""
	for name, test := range map[string]struct {
		cert, key, ca []byte
		names         Names
		after         time.Duration
		want          string
	}{
		"good":              {m.cert, m.key, m.ca, node1, 0, ""},
		"without a domain":  {m.cert, m.key, m.ca, noDomain, 0, ""},
		"mapped address":    {m.cert, m.key, m.ca, Names{"node1", "", netip.MustParseAddr("::ffff:10.99.0.1")}, 0, ""},
		"last good day":     {m.cert, m.key, m.ca, node1, 715 * day, ""},
		"ends soon":         {m.cert, m.key, m.ca, node1, 715*day + time.Second, "it ends on"},
		"ended":             {m.cert, m.key, m.ca, node1, 730 * day, "it ended on"},
		"not yet":           {m.cert, m.key, m.ca, node1, -2 * day, "it begins only on"},
		"absent":            {nil, m.key, m.ca, node1, 0, "there is none"},
		"garbage":           {[]byte("x"), m.key, m.ca, node1, 0, "can't be read"},
		"another key":       {m.cert, otherKey, m.ca, node1, 0, "does not belong"},
		"no key":            {m.cert, nil, m.ca, node1, 0, "its key can't be read"},
		"another CA":        {m.cert, m.key, otherCA, node1, 0, "has not made it"},
		"a CA of that name": {m.cert, m.key, sameName, node1, 0, "has not made it"},
		"renamed":           {m.cert, m.key, m.ca, renamed, 0, "lacks the name node9"},
		"moved":             {m.cert, m.key, m.ca, moved, 0, "lacks the address 10.99.0.9"},
	} {
		got := Outdated(test.cert, test.key, test.ca, test.names, recordedAt.Add(test.after))
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if _, err := NewNodeCertificate(m.ca, otherKey, m.key, node1, big.NewInt(1), recordedAt); err == nil {
		t.Error("a key that is not the CA's signs")
	}
}

func TestKeysAreReadInBothForms(t *testing.T) {
	m, err := made()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(m.key)
	if err != nil {
		t.Fatal(err)
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
	again, err := ParseKey(old)
	if err != nil || !k.Equal(again) {
		t.Errorf("PKCS #1: %v", err)
	}
	pub, err := PublicKey(old)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pub)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || block.Type != "PUBLIC KEY" || !k.PublicKey.Equal(parsed.(*rsa.PublicKey)) {
		t.Errorf("public half: %s, %v", pub, err)
	}
	for _, bad := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", string(m.cert)} {
		if _, err := ParseKey([]byte(bad)); err == nil {
			t.Errorf("%q is a key", bad)
		}
	}
}

func TestSerialsCount(t *testing.T) {
	for last, want := range map[string]string{"": "01\n", "0000000000000000": "01\n", "01\n": "02\n", "0F\n": "10\n", "FF": "0100\n", "fe\n": "FF\n",
		"5B9EA6C5A6E5DDD43C0F8CBA7A9C7B4D6B4F7E11": "5B9EA6C5A6E5DDD43C0F8CBA7A9C7B4D6B4F7E12\n"} {
		n, text, err := NextSerial([]byte(last))
		if err != nil || string(text) != want || !strings.EqualFold(strings.TrimLeft(strings.TrimSpace(want), "0"), n.Text(16)) {
			t.Errorf("after %q: %v, %q, %v; want %q", last, n, text, err, want)
		}
	}
	for _, bad := range []string{"x", "-1", "1 2"} {
		if _, _, err := NextSerial([]byte(bad)); err == nil {
			t.Errorf("%q is a serial number", bad)
		}
	}
}

func TestSearchDomainIsTheLastLines(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "nameserver 1.1.1.1\n": "", "search lab.example other\n": "lab.example", "domain a\nsearch b c\n": "b",
		"search b\ndomain a.\n": "a", "search\n": "", " search x\n": "x", "#search x\n": "",
	} {
		if got := SearchDomain([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("0F\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		Outdated(b, b, b, node1, recordedAt)
		if n, text, err := NextSerial(b); err == nil {
			if n.Sign() <= 0 || len(text)%2 != 1 {
				t.Errorf("serial after %q: %v, %q", b, n, text)
			}
		}
	})
}
