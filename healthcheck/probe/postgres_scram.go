package probe

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"
)

// mostSCRAMIterations limits the work that a server may ask for. PostgreSQL's default of 4,096 takes 1 ms. This many
// take about 100 ms, and no context can interrupt them.
const mostSCRAMIterations = 500_000

// A scramClient is the client's side of one login by SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding: the
// certificate proves the server's name. newSCRAMClient makes it. It is written by hand because pgconn does not export
// its own, and because this one limits the iterations that a server may ask for.
//
// The password is used as it is. RFC 5802 wants it normalised by SASLprep, which does not change printable ASCII. A
// password with other characters must be configured in its normal form (NFKC).
type scramClient struct {
	// set once, then read-only
	password string
	nonce    string

	signature []byte // of the server, expected; set by final
}

// newSCRAMClient returns a client for one login.
func newSCRAMClient(password string) *scramClient {
	return &scramClient{password: password, nonce: rand.Text()}
}

// first returns the client's first message. PostgreSQL takes the user's name from the startup message.
func (s *scramClient) first() []byte { return []byte("n,," + s.firstBare()) }

func (s *scramClient) firstBare() string { return "n=,r=" + s.nonce }

// final returns the answer to the server's first message. Errors are checkErrors.
func (s *scramClient) final(serverFirst string) ([]byte, error) {
	nonce, rest, _ := strings.Cut(serverFirst, ",s=")
	salt64, iterations, _ := strings.Cut(rest, ",i=")
	nonce, ok := strings.CutPrefix(nonce, "r=")
	if !ok || !strings.HasPrefix(nonce, s.nonce) || len(nonce) == len(s.nonce) || strings.Contains(nonce, ",") {
		return nil, unhealthyf("not a postgresql server: nonsense in scram")
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || len(salt) == 0 {
		return nil, unhealthyf("not a postgresql server: nonsense in scram")
	}
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 {
		return nil, unhealthyf("not a postgresql server: nonsense in scram")
	}
	if n > mostSCRAMIterations {
		return nil, unhealthyf("scram wants %d iterations, at most %d allowed", n, mostSCRAMIterations)
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, n, sha256.Size)
	if err != nil {
		return nil, cannotCheckf("%s", escaped(err.Error())).because(err) // FIPS 140 mode refuses some parameters
	}

	withoutProof := "c=biws,r=" + nonce // biws is "n,," in base64, with which first begins
	messages := s.firstBare() + "," + serverFirst + "," + withoutProof
	clientKey := hmacSHA256(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	proof := make([]byte, len(clientKey))
	subtle.XORBytes(proof, clientKey, hmacSHA256(storedKey[:], messages))
	s.signature = hmacSHA256(hmacSHA256(salted, "Server Key"), messages)
	return []byte(withoutProof + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify checks the server's final message, which proves that the server knows the password as well.
func (s *scramClient) verify(serverFinal string) error {
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(serverFinal, "v="))
	if err != nil || !hmac.Equal(signature, s.signature) {
		return unhealthyf("the server does not know the password it asked for")
	}
	return nil
}

func hmacSHA256(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message)) // never fails
	return h.Sum(nil)
}
