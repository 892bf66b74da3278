package dnscache

// typeNAPTR is the only type whose data has texts before its name (RFC 3403, 4.1).
const typeNAPTR = 35

// dataNames returns how many names a record's data has, and after how many bytes they begin. Only the names of RFC 1035
// may be compressed, but receivers should accept compression in the types of RFC 3597, 4 too. The other types are here
// because programs that read messages follow pointers in any name.
func dataNames(typ uint16) (skip, names int) {
	switch typ {
	case 2, 3, 4, 5, 7, 8, 9, 12, 23, 30, 39, 47: // NS, MD, MF, CNAME, MB, MG, MR, PTR, NSAP-PTR, NXT, DNAME, NSEC
		return 0, 1
	case typeSOA, 14, 17, 58: // MINFO, RP, TALINK
		return 0, 2
	case 15, 18, 21, 36, 64, 65, 107: // MX, AFSDB, RT, KX, SVCB, HTTPS, LP
		return 2, 1
	case 26: // PX
		return 2, 2
	case 33: // SRV
		return 6, 1
	case 24, 46: // SIG, RRSIG
		return 18, 1
	case typeNAPTR:
		return 4, 1
	}
	return 0, 0
}

// naptrNameAt returns where the name of a NAPTR record's data begins: behind two numbers and three texts. The result
// lies beyond the data if the data is malformed.
func naptrNameAt(data []byte) int {
	at := 4
	for range 3 {
		if at >= len(data) {
			break
		}
		at += 1 + int(data[at])
	}
	return at
}
