package tcp

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Identity is a node's certificate with its key, and the authorities that the
// certificates of its peers must come from. It is not changed after use.
type Identity struct {
	Certificate tls.Certificate
	Authorities *x509.CertPool
}

// NodeURI is the subject alternative name that binds a certificate to a node. What
// is neither a letter, a digit nor one of -._~$&+=:@ in a cluster's name is
// percent-encoded.
func NodeURI(cluster string, node uint64) string {
	// A host would be the natural place for the cluster, but not every name makes one.
	return "synod:///" + url.PathEscape(cluster) + "/node/" + strconv.FormatUint(node, 10)
}

// LoadIdentity reads an identity from PEM files: the authorities' certificates,
// and the node's certificate and key.
func LoadIdentity(authorities, certificate, key string) (*Identity, error) {
	b, err := os.ReadFile(authorities)
	if err != nil {
		return nil, fmt.Errorf("tcp: read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("tcp: %s holds no certificate in PEM form", authorities)
	}
	c, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("tcp: read certificate %s and key %s: %w", certificate, key, err)
	}
	return &Identity{Certificate: c, Authorities: pool}, nil
}

func (i *Identity) check(cluster string, node uint64) error {
	if i.Authorities == nil {
		return errors.New("it has no Authorities: peers could not be checked")
	}
	if len(i.Certificate.Certificate) == 0 {
		return errors.New("it has no Certificate")
	}
	leaf, err := x509.ParseCertificate(i.Certificate.Certificate[0])
	if err != nil {
		return fmt.Errorf("its certificate can't be read: %w", err)
	}
	if err := certifies(leaf, cluster, node); err != nil {
		return fmt.Errorf("its certificate is not this node's: %w", err)
	}
	rest := make([]*x509.Certificate, 0, len(i.Certificate.Certificate))
	for _, der := range i.Certificate.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("its certificate can't be read: %w", err)
		}
		rest = append(rest, c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := i.verify(leaf, rest, usage); err != nil {
			return fmt.Errorf("its own authorities do not accept its certificate, so peers won't either: %w", err)
		}
	}
	return nil
}

// verify checks a certificate's signatures, dates and usage.
func (i *Identity) verify(leaf *x509.Certificate, rest []*x509.Certificate, usage x509.ExtKeyUsage) error {
	o := x509.VerifyOptions{Roots: i.Authorities, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range rest {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return nil
}

// certifies reports whether a certificate is that of a node.
func certifies(c *x509.Certificate, cluster string, node uint64) error {
	want := NodeURI(cluster, node)
	var have []string
	for _, u := range c.URIs {
		if u.String() == want {
			return nil
		}
		have = append(have, u.String())
	}
	return fmt.Errorf("%w: it is for %q, not for %q", ErrCertificate, strings.Join(have, " "), want)
}

func (i *Identity) server() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.Certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    i.Authorities,
		// A resumed session would skip what the certificate is checked for.
		SessionTicketsDisabled: true,
	}
}

// client returns what a dialler of a node uses. Certificates name nodes, not
// hosts, so that the usual check of the host's name is replaced, not left out.
func (i *Identity) client(cluster string, node uint64) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{i.Certificate},
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return fmt.Errorf("%w: there is none", ErrCertificate)
			}
			leaf := s.PeerCertificates[0]
			if err := i.verify(leaf, s.PeerCertificates[1:], x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			return certifies(leaf, cluster, node)
		},
	}
}

// DevelopmentAuthority signs certificates for trying things out and for tests. Its
// key is in memory only, and its certificates are valid for a year. For
// production use an authority of your own.
type DevelopmentAuthority struct {
	key         ed25519.PrivateKey
	certificate *x509.Certificate
}

// NewDevelopmentAuthority makes a new authority.
func NewDevelopmentAuthority() (*DevelopmentAuthority, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("tcp: make a key: %w", err)
	}
	template := certificateTemplate("synod development authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return nil, fmt.Errorf("tcp: make the authority's certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("tcp: make the authority's certificate: %w", err)
	}
	return &DevelopmentAuthority{key, c}, nil
}

func certificateTemplate(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.AddDate(1, 0, 0),
	}
}

// Issue makes an identity for a node of a cluster.
func (a *DevelopmentAuthority) Issue(cluster string, node uint64) (*Identity, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("tcp: make a key: %w", err)
	}
	template := certificateTemplate(fmt.Sprintf("node %d of %q", node, cluster))
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	uri, err := url.Parse(NodeURI(cluster, node))
	if err != nil {
		return nil, fmt.Errorf("tcp: certificate for node %d of cluster %q: %w", node, cluster, err)
	}
	template.URIs = []*url.URL{uri}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("tcp: certificate for node %d of cluster %q: %w", node, cluster, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("tcp: certificate for node %d of cluster %q: %w", node, cluster, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &Identity{Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, Authorities: pool}, nil
}

// WriteDevelopmentFiles makes an authority and identities for the nodes of a
// cluster, and writes them to a directory for LoadIdentity: ca.pem, and node-ID.pem
// and node-ID-key.pem for each node.
func WriteDevelopmentFiles(dir, cluster string, nodes ...uint64) error {
	a, err := NewDevelopmentAuthority()
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte, mode os.FileMode) error {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
			return fmt.Errorf("tcp: write development files: %w", err)
		}
		return nil
	}
	if err := write("ca.pem", "CERTIFICATE", a.certificate.Raw, 0o644); err != nil {
		return err
	}
	for _, node := range nodes {
		i, err := a.Issue(cluster, node)
		if err != nil {
			return err
		}
		key, err := x509.MarshalPKCS8PrivateKey(i.Certificate.PrivateKey)
		if err != nil {
			return fmt.Errorf("tcp: write development files: %w", err)
		}
		name := fmt.Sprintf("node-%d", node)
		if err := errors.Join(
			write(name+".pem", "CERTIFICATE", i.Certificate.Certificate[0], 0o644),
			write(name+"-key.pem", "PRIVATE KEY", key, 0o600)); err != nil {
			return err
		}
	}
	return nil
}
