package dns_test

import "github.com/limeload/limeload-l4/l4/internal/l4test"

// Short names for what the tests here take from l4test.
var (
	newPool       = l4test.NewPool
	start         = l4test.Start
	allocations   = l4test.Allocations
	descriptors   = l4test.Descriptors
	eventually    = l4test.Eventually
	startWith     = l4test.StartWith
	withOffload   = l4test.WithOffload
	dial          = l4test.Dial
	backend       = l4test.Backend
	refusing      = l4test.Refusing
	swallowing    = l4test.Swallowing
	flowSpec      = l4test.FlowSpec
	startUDP      = l4test.StartUDP
	echoUDP       = l4test.EchoUDP
	dialUDP       = l4test.DialUDP
	sendTrain     = l4test.SendTrain
	address       = l4test.Address
	info          = l4test.Info
	hold          = l4test.Hold
	onLoop        = l4test.OnLoop
	awaitDropped  = l4test.AwaitDropped
	awaitFlows    = l4test.AwaitFlows
	firstPool     = l4test.FirstPool
	eachSession   = l4test.EachSession
	dnsSpec       = l4test.DNSSpec
	talkSpec      = l4test.DNSOverTCPSpec
	setDNSTimeout = l4test.SetDNSTimeout
	eitherWay     = l4test.EitherWay
	dnsInfo       = l4test.DNSInfo
	dnsQuery      = l4test.DNSQuery
	dnsPack       = l4test.DNSPack
	dnsUnpack     = l4test.DNSUnpack
	dnsAnswer     = l4test.DNSAnswer
	sendDNS       = l4test.SendDNS
	answering     = l4test.Answering
	exchange      = l4test.Exchange
	awaitUDP      = l4test.AwaitUDP
	nameOf        = l4test.NameOf
	addressOf     = l4test.AddressOf
	wantAddress   = l4test.WantAddress
	wantCode      = l4test.WantCode
)
