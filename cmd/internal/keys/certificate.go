package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	caBits, nodeBits = 4096, 2048
	caDays           = 3650
	nodeDays         = 730 // at most
	nodeMargin       = 2   // days by which a node's certificate ends before the CA's
	caLeast          = 14  // days that a CA must last, to sign
	renewBefore      = 14 * day
	day              = 24 * time.Hour
	// backdate makes a certificate valid for hosts whose clocks lag.
	backdate = day
)

// NewKey makes an RSA key, as PEM (PKCS #8).
func NewKey(bits int) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads an RSA key in PEM, PKCS #8 or PKCS #1.
func ParseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		if rsaKey, ok := key.(*rsa.PrivateKey); ok {
			return rsaKey, nil
		}
		return nil, fmt.Errorf("a key of type %T, not RSA", key)
	}
	return nil, fmt.Errorf("a PEM block of type %q, not a private key", block.Type)
}

// PublicKey returns the public half of a key in PEM.
func PublicKey(key []byte) ([]byte, error) {
	k, err := ParseKey(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// ParseCertificate reads the first certificate of a text in PEM.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no certificate in PEM")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}

// Fingerprint returns the SHA-256 of the first certificate of a text in PEM, in upper case with
// colons.
func Fingerprint(text []byte) (string, error) {
	c, err := ParseCertificate(text)
	if err != nil {
		return "", err
	}
	return FingerprintOf(c.Raw), nil
}

// FingerprintOf returns the SHA-256 of a certificate in DER, in upper case with colons.
func FingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// Names are those that a node's certificate is for.
type Names struct {
	Node    string // its name, without a domain
	Domain  string // the search domain; empty means none
	Address netip.Addr
}

// FQDN returns the node's name with the domain.
func (n Names) FQDN() string {
	if n.Domain == "" {
		return n.Node
	}
	return n.Node + "." + n.Domain
}

// dns and ips are the subject's alternative names, without the loopback ones.
func (n Names) dns() []string {
	if n.Domain == "" {
		return []string{n.Node}
	}
	return []string{n.Node, n.FQDN()}
}

// SearchDomain returns the domain that a resolv.conf gives names without one: the first
// word of the last line "search" or "domain". It is empty if there is none.
func SearchDomain(resolvConf []byte) string {
	domain := ""
	for line := range strings.Lines(string(resolvConf)) {
		if f := strings.Fields(line); len(f) >= 2 && (f[0] == "search" || f[0] == "domain") {
			domain = strings.TrimSuffix(f[1], ".")
		}
	}
	return domain
}

var (
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrganisation     = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidUnit             = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidAlternativeNames = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtendedKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
)

// attribute is a part of a subject.
type attribute struct {
	id    asn1.ObjectIdentifier
	value string
}

// subject returns a distinguished name in DER, its parts in their order and as UTF-8.
func subject(parts ...attribute) ([]byte, error) {
	var name pkix.RDNSequence
	for _, p := range parts {
		name = append(name, pkix.RelativeDistinguishedNameSET{{
			Type: p.id, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(p.value)},
		}})
	}
	return asn1.Marshal(name)
}

// extension returns an extension with a value to be marshalled.
func extension(id asn1.ObjectIdentifier, critical bool, value any) (pkix.Extension, error) {
	der, err := asn1.Marshal(value)
	return pkix.Extension{Id: id, Critical: critical, Value: der}, err
}

// keyID is the hash by which extensions name a public key.
func keyID(key *rsa.PublicKey) []byte {
	sum := sha1.Sum(x509.MarshalPKCS1PublicKey(key))
	return sum[:]
}

// authority is the content of the extension that names the issuer's key.
type authority struct {
	ID []byte `asn1:"tag:0"`
}

// sign makes a certificate, with these extensions in this order and no others.
func sign(template, parent *x509.Certificate, public *rsa.PublicKey, by *rsa.PrivateKey, extensions []func() (pkix.Extension, error)) ([]byte, error) {
	for _, make := range extensions {
		x, err := make()
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, x)
	}
	template.SignatureAlgorithm = x509.SHA256WithRSA
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// NewCA makes the cluster's certificate authority for a key; uuid makes its name
// different from that of any other cluster.
func NewCA(key []byte, uuid string, now time.Time) ([]byte, error) {
	k, err := ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	name, err := subject(
		attribute{oidCommonName, "Proxmox Virtual Environment"},
		attribute{oidUnit, uuid},
		attribute{oidOrganisation, "PVE Cluster Manager CA"})
	if err != nil {
		return nil, err
	}
	serial, err := RandomSerial()
	if err != nil {
		return nil, err
	}
	begin := now.Add(-backdate).UTC().Truncate(time.Second)
	template := &x509.Certificate{SerialNumber: serial, RawSubject: name, NotBefore: begin, NotAfter: begin.Add(caDays * day)}
	id := keyID(&k.PublicKey)
	return sign(template, template, &k.PublicKey, k, []func() (pkix.Extension, error){
		func() (pkix.Extension, error) { return extension(oidSubjectKeyID, false, id) },
		func() (pkix.Extension, error) { return extension(oidAuthorityKeyID, false, authority{id}) },
		func() (pkix.Extension, error) {
			return extension(oidBasicConstraints, true, struct{ CA bool }{true})
		},
		func() (pkix.Extension, error) { // the bits 5 and 6: certificates and revocation lists
			return extension(oidKeyUsage, true, asn1.BitString{Bytes: []byte{0x06}, BitLength: 7})
		},
	})
}

// NewNodeCertificate makes a node's certificate for a key, signed by the CA. It ends before
// the CA does.
func NewNodeCertificate(ca, caKey, key []byte, names Names, serial *big.Int, now time.Time) ([]byte, error) {
	parent, err := ParseCertificate(ca)
	if err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	signer, err := ParseKey(caKey)
	if err != nil {
		return nil, fmt.Errorf("the CA's key: %w", err)
	}
	if pub, ok := parent.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(&signer.PublicKey) {
		return nil, errors.New("the CA's key does not belong to its certificate")
	}
	k, err := ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("the node's key: %w", err)
	}
	left := int(parent.NotAfter.Sub(now) / day)
	if left < caLeast {
		return nil, fmt.Errorf("the cluster's CA ends on %s, in %d days: a new CA is needed (remove pve-root-ca.pem, and run updatecerts on every node)", parent.NotAfter.Format(time.DateOnly), left)
	}
	name, err := subject(
		attribute{oidUnit, "PVE Cluster Node"},
		attribute{oidOrganisation, "Proxmox Virtual Environment"},
		attribute{oidCommonName, names.FQDN()})
	if err != nil {
		return nil, err
	}
	begin := now.Add(-backdate).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial, RawSubject: name,
		NotBefore: begin, NotAfter: begin.Add(time.Duration(min(left-nodeMargin, nodeDays)) * day),
	}
	return sign(template, parent, &k.PublicKey, signer, []func() (pkix.Extension, error){
		func() (pkix.Extension, error) { return extension(oidBasicConstraints, false, struct{}{}) },
		func() (pkix.Extension, error) {
			return extension(oidExtendedKeyUsage, false, []asn1.ObjectIdentifier{oidServerAuth})
		},
		func() (pkix.Extension, error) { return extension(oidAlternativeNames, false, names.alternatives()) },
		func() (pkix.Extension, error) { return extension(oidSubjectKeyID, false, keyID(&k.PublicKey)) },
		func() (pkix.Extension, error) {
			return extension(oidAuthorityKeyID, false, authority{parent.SubjectKeyId})
		},
	})
}

// alternatives are the subject's alternative names in the order in which stock nodes have them.
func (n Names) alternatives() []asn1.RawValue {
	ip := func(a netip.Addr) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: a.AsSlice()}
	}
	dns := func(name string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)}
	}
	list := []asn1.RawValue{
		ip(netip.AddrFrom4([4]byte{127, 0, 0, 1})), ip(netip.IPv6Loopback()), dns("localhost"), ip(n.Address.Unmap()),
	}
	for _, name := range n.dns() {
		list = append(list, dns(name))
	}
	return list
}

// RandomSerial returns 127 random bits.
func RandomSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b), nil
}

// NextSerial takes the text of the file that holds the last serial number that was used
// (hexadecimal; empty means none), and returns the next one and the file's new text.
func NextSerial(last []byte) (*big.Int, []byte, error) {
	text := strings.TrimSpace(string(last))
	n := new(big.Int)
	if text != "" {
		if _, ok := n.SetString(text, 16); !ok || n.Sign() < 0 {
			return nil, nil, fmt.Errorf("%q is no hexadecimal number", text)
		}
	}
	n.Add(n, big.NewInt(1))
	out := fmt.Sprintf("%X", n)
	if len(out)%2 == 1 {
		out = "0" + out
	}
	return n, []byte(out + "\n"), nil
}

// Outdated says why a node's certificate is to be made anew; empty means that it is good.
// Any of its texts may be absent (nil).
func Outdated(cert, key, ca []byte, names Names, now time.Time) string {
	if len(cert) == 0 {
		return "there is none"
	}
	c, err := ParseCertificate(cert)
	if err != nil {
		return fmt.Sprintf("it can't be read: %v", err)
	}
	if k, err := ParseKey(key); err != nil {
		return fmt.Sprintf("its key can't be read: %v", err)
	} else if pub, ok := c.PublicKey.(*rsa.PublicKey); !ok || !pub.Equal(&k.PublicKey) {
		return "it does not belong to the node's key"
	}
	parent, err := ParseCertificate(ca)
	if err != nil {
		return fmt.Sprintf("the CA's certificate can't be read: %v", err)
	}
	// Not CheckSignatureFrom, which wants more of a CA than its signature.
	if !bytes.Equal(c.RawIssuer, parent.RawSubject) || parent.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		return "the cluster's CA has not made it"
	}
	if left := c.NotAfter.Sub(now); left < renewBefore {
		if left <= 0 {
			return "it ended on " + c.NotAfter.Format(time.DateOnly)
		}
		return "it ends on " + c.NotAfter.Format(time.DateOnly)
	}
	if now.Before(c.NotBefore) {
		return "it begins only on " + c.NotBefore.Format(time.DateOnly)
	}
	for _, name := range names.dns() {
		if !slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, name) }) {
			return "it lacks the name " + name
		}
	}
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == names.Address.Unmap() {
			return ""
		}
	}
	return "it lacks the address " + names.Address.String()
}
