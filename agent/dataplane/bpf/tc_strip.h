/* Taking the inner packet out of its tunnel in a socket buffer.
 *
 * A checksum that sender and card left to do (CHECKSUM_PARTIAL, usual on veth and virtio) points at the outer UDP header.
 * When no more than the outer headers are cut off, it points at the new source address then, and an outgoing interface
 * without checksum offload fills it in there. The kernel forgets it once what is cut off reaches beyond where the sum
 * starts (skb_postpull_rcsum), so a few octets of the inner header are cut off too, given back and written again. A
 * checksum of the inner packet itself that is left to do stays in its place.
 *
 * Where the card has verified the checksum nothing is left to do, and the second change of the buffer is saved. */
#ifndef ISTHMUS_TC_STRIP_H
#define ISTHMUS_TC_STRIP_H

#include "rewrite.h"

#define CUT_TOO_FAR 8 /* more than the four octets of the Ethernet header from which the sum would start */
#define FAMILY_GAP ((int)(sizeof(struct ipv6hdr) - sizeof(struct iphdr)))
#define BEHIND_IPV4 ((int)(sizeof(struct udphdr) + sizeof(struct amt_data)))

/* Headers of the frame as it leaves, but for its source address. */
struct headers {
	__u8 unused[2]; /* the verifier wants what is on the stack aligned */
	struct ethhdr link;
	union {
		struct iphdr ipv4;
		struct ipv6hdr ipv6;
	};
};

/* Make the headers out of those of the inner packet. Returns 0, or -1 when they are not in sight. */
static __always_inline int make_headers(struct cursor *frame, const struct packet *packet, int version,
					struct headers *made)
{
	const void *inner = words_of(frame->start + packet->at);

	if (version == 4) {
		if (inner + sizeof(struct iphdr) > frame->end)
			return -1;
		__builtin_memcpy(&made->ipv4, inner, sizeof(struct iphdr));
		address_frame4(&made->link, &made->ipv4);
		rewrite_header4(&made->ipv4, packet->ecn, 1, 0);
	} else {
		if (inner + sizeof(struct ipv6hdr) > frame->end)
			return -1;
		__builtin_memcpy(&made->ipv6, inner, sizeof(struct ipv6hdr));
		address_frame6(&made->link, &made->ipv6);
		rewrite_header6(&made->ipv6, packet->ecn, 1);
	}
	write_unknown_source(&made->link);
	return 0;
}

static __always_inline int resize(struct __sk_buff *skb, int octets)
{
	return bpf_skb_adjust_room(skb, octets, BPF_ADJ_ROOM_MAC, 0);
}

/* Cut octets off behind the Ethernet header. Returns 0, 1 when nothing was changed, -1 when the packet is lost. */
static __always_inline int cut_off(struct __sk_buff *skb, int octets)
{
	if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0)
		return resize(skb, -octets) ? 1 : 0;
	if (resize(skb, -octets - CUT_TOO_FAR))
		return 1;
	return resize(skb, CUT_TOO_FAR) ? -1 : 0;
}

/* Octets the inner packet must have. Every UDP packet has them: the kernel keeps a whole header of the family the buffer
 * is said to have. */
static __always_inline __u32 least_inner(int version)
{
	return CUT_TOO_FAR + (version == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
}

/* Between the families a helper cuts or gives the difference of their headers and changes what the kernel takes the
 * packet for, which bridges and queueing disciplines look at.
 * Returns 0, 1 when nothing was changed, -1 when the packet is lost. */
static __always_inline int strip_buffer(struct __sk_buff *skb, int version)
{
	int outer = skb->protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
	int outer_octets = BEHIND_IPV4 + (int)sizeof(struct iphdr);

	if (outer == version)
		return cut_off(skb, outer_octets + (outer == 6 ? FAMILY_GAP : 0));
	if (outer == 4) {
		if (resize(skb, -outer_octets - FAMILY_GAP))
			return 1;
		return bpf_skb_change_proto(skb, bpf_htons(ETH_P_IPV6), 0) ? -1 : 0;
	}
	if (bpf_skb_change_proto(skb, bpf_htons(ETH_P_IP), 0))
		return 1;
	return cut_off(skb, outer_octets) ? -1 : 0;
}

#endif
