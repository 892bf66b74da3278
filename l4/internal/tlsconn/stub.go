package tlsconn

import (
	"crypto/tls"
	"net/netip"
)

type Server struct{ C *tls.Config }

func (s *Server) Config() *tls.Config     { return s.C }
func (s *Server) Serves(name []byte) bool { return true }

type Client struct {
	C                  *tls.Config
	Start, FromClient_ bool
}

func (c *Client) Config(serverName string, at netip.AddrPort) *tls.Config { return c.C }
func (c *Client) StartTLS() bool                                          { return c.Start }
func (c *Client) NamesFromClient() bool                                   { return c.FromClient_ }
