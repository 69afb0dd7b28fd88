/* The programs on the uplinks, before the kernel has made a packet buffer. */
#ifndef ISTHMUS_GATEWAY_XDP_H
#define ISTHMUS_GATEWAY_XDP_H

#include "judge.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"

#define XDP_PLANES (1 << PLANE_XDP | 1 << PLANE_XDP_MFC)

/* Cut off what is before and behind the inner packet, but for room for an Ethernet header. Returns 0, or an error after
 * which the packet is still whole. */
static __always_inline int strip(struct xdp_md *context, const struct packet *packet, __u32 octets)
{
	__u32 behind = octets - packet->at - packet->length;

	if (behind && bpf_xdp_adjust_tail(context, -(int)behind))
		return -1;
	return bpf_xdp_adjust_head(context, packet->at - sizeof(struct ethhdr));
}

/* Write the headers of a stripped packet for the interfaces it leaves by. Returns 0, or -1 when there is no packet. */
static __always_inline int rewrite_for_ports(struct xdp_md *context, const struct packet *packet, int version)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ipv4 = (void *)(ethernet + 1);
	struct ipv6hdr *ipv6 = (void *)(ethernet + 1);

	if (version == 4) {
		if ((void *)(ipv4 + 1) > end)
			return -1;
		address_frame4(ethernet, ipv4);
		write_unknown_source(ethernet);
		rewrite_header4(ipv4, packet->ecn, 1, 0);
		return 0;
	}
	if ((void *)(ipv6 + 1) > end)
		return -1;
	address_frame6(ethernet, ipv6);
	write_unknown_source(ethernet);
	rewrite_header6(ipv6, packet->ecn, 1);
	return 0;
}

/* Give a packet to the outgoing interfaces of its channel. */
static __always_inline int redirect(struct xdp_md *context, const struct channel *channel)
{
	void *interfaces;

	if (channel->single)
		return bpf_redirect_map(&single_ports, channel->single, XDP_DROP);
	interfaces = bpf_map_lookup_elem(&sets, &channel->set);
	return interfaces ? bpf_redirect_map(interfaces, 0, BPF_F_BROADCAST | XDP_DROP) : XDP_DROP;
}

/* Write the headers of a stripped packet for the kernel's multicast routing: it will take the hop. Packets that carry
 * Don't Fragment lose it, since the kernel does not route them once they are joined, and are marked so that they get
 * it back; fragments are never joined. The secret destination is a station's that is not there: should the TC program
 * be gone, the kernel drops the packet rather than take it for multicast of the uplink. */
static __noinline int rewrite_for_routing(struct xdp_md *context, __u32 version, __u32 ecn)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ipv4 = (void *)(ethernet + 1);
	struct ipv6hdr *ipv6 = (void *)(ethernet + 1);
	struct settings *chosen;
	__u32 index = 0;

	chosen = bpf_map_lookup_elem(&settings, &index);
	if (!chosen)
		return -1;
	if (version == 4) {
		const __u8 *mark = chosen->secret_plain, *keep_whole = chosen->secret_keep_whole;

		KEEP_APART(mark);
		KEEP_APART(keep_whole);
		if ((void *)(ipv4 + 1) > end)
			return -1;
		if (ipv4->frag_off == bpf_htons(IPV4_DONT_FRAGMENT))
			mark = keep_whole;
		__builtin_memcpy(ethernet->h_dest, mark, ETH_ALEN);
		write_unknown_source(ethernet);
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		rewrite_header4(ipv4, ecn, 0, 1);
		return 0;
	}
	if ((void *)(ipv6 + 1) > end)
		return -1;
	__builtin_memcpy(ethernet->h_dest, chosen->secret_plain, ETH_ALEN);
	write_unknown_source(ethernet);
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	rewrite_header6(ipv6, ecn, 0);
	return 0;
}

/* Forward a packet that was found good. Returns the program's verdict. */
static __always_inline int forward(struct xdp_md *context, const struct packet *packet, int version, __u32 octets)
{
	struct channel *channel = packet->channel;
	int verdict;

	if (strip(context, packet, octets)) {
		leave(NO_ROOM);
		return XDP_PASS;
	}
	if (channel->plane == PLANE_XDP) {
		verdict = rewrite_for_ports(context, packet, version) ? XDP_DROP : redirect(context, channel);
	} else {
		verdict = rewrite_for_routing(context, version, packet->ecn) ? XDP_DROP : XDP_PASS;
	}
	if (verdict == XDP_DROP) {
		refuse(OUTPUT_ERROR);
		return XDP_DROP;
	}
	count_forwarded(channel, packet->length);
	if (channel->announce)
		announce(channel);
	return verdict;
}

/* Which of `cores` processors takes the packets of an inner flow. */
static __always_inline __u32 core_of(struct cursor *cursor, __u32 at, __u32 cores)
{
	const __be16 *words = words_of(cursor->start + at);
	__u32 mixed;

	if ((void *)(words + 10) > cursor->end)
		return 0;
	mixed = (words[6] << 16 | words[7]) ^ (words[8] << 16 | words[9]) * 0x9e3779b1; /* source and group of IPv4 */
	if (*(__u8 *)words >> 4 == 6) {
		if ((void *)(words + 20) > cursor->end)
			return 0;
		mixed = (words[8] << 16 | words[9]) ^ (words[10] << 16 | words[11]) ^
			(words[18] << 16 | words[19]) * 0x9e3779b1;
	}
	return (mixed * 0x85ebca6b >> 16) % cores;
}

/* Verdict of a program's inside: the packet is for the processor named in the low 16 bits. Only gateway_xdp may name the
 * map of processors: that map holds gateway_cpu, and would never go were gateway_cpu to hold it too. */
#define FOR_PROCESSOR 0x10000

/* Returns FOR_PROCESSOR and the processor of a packet's flow, or 0 when it is to be handled here. */
static __always_inline int spread(struct cursor *cursor, __u32 at)
{
	__u32 index = 0;
	struct settings *chosen = bpf_map_lookup_elem(&settings, &index);

	if (!chosen || !chosen->receive_cores)
		return 0;
	return FOR_PROCESSOR | (core_of(cursor, at, chosen->receive_cores) & 0xffff);
}

static __always_inline int receive_inner(struct xdp_md *context, struct cursor *cursor, struct packet *packet,
					 int version, __u32 octets)
{
	switch (judge_inner(cursor, packet, version, XDP_PLANES)) {
	case FORWARD:
		return forward(context, packet, version, octets);
	case REFUSE:
		return XDP_DROP;
	}
	return XDP_PASS;
}

/* Handle a frame with its outer packet of type `ethertype` behind `link_octets`, both constants. */
static __always_inline int receive(struct xdp_md *context, __u32 link_octets, __u16 ethertype, __u32 vlans, int spreading)
{
	struct cursor cursor = { (void *)(long)context->data, (void *)(long)context->data_end, link_octets };
	struct arrival arrival = { .vlans = vlans, .octets = bpf_xdp_get_buff_len(context), .xdp = context };
	struct packet packet = {};
	int outcome = judge_outer(&cursor, bpf_htons(ethertype), &arrival, &packet);

	if (outcome == FORWARD) {
		int elsewhere = spreading ? spread(&cursor, packet.at) : 0;

		if (elsewhere)
			return elsewhere;
		switch (inner_version(&cursor, &packet)) {
		case 4:
			return receive_inner(context, &cursor, &packet, 4, arrival.octets);
		case 6:
			return receive_inner(context, &cursor, &packet, 6, arrival.octets);
		}
		outcome = refuse(BAD_INNER_HEADER);
	}
	return outcome == REFUSE ? XDP_DROP : XDP_PASS;
}

#define RECEIVER(name, link_octets, ethertype)                                              \
	static __noinline int name(struct xdp_md *context, __u32 vlans, int spreading)      \
	{                                                                                   \
		return receive(context, link_octets, ethertype, vlans, spreading);          \
	}

RECEIVER(receive6, ETH_HLEN, ETH_P_IPV6)
RECEIVER(receive4_tagged, ETH_HLEN + sizeof(struct vlan_tag), ETH_P_IP)
RECEIVER(receive6_tagged, ETH_HLEN + sizeof(struct vlan_tag), ETH_P_IPV6)
RECEIVER(receive4_doubly_tagged, ETH_HLEN + 2 * sizeof(struct vlan_tag), ETH_P_IP)
RECEIVER(receive6_doubly_tagged, ETH_HLEN + 2 * sizeof(struct vlan_tag), ETH_P_IPV6)

/* Frames with one VLAN tag or two. A third is nobody's. */
static __noinline int receive_any_tagged(struct xdp_md *context, int spreading)
{
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct vlan_tag *outermost = (void *)(ethernet + 1), *second = outermost + 1;
	__u32 vlans;

	if ((void *)(second + 1) > (void *)(long)context->data_end)
		return XDP_PASS;
	vlans = vlan_of(outermost) << 16;
	if (outermost->ethertype == bpf_htons(ETH_P_IP))
		return receive4_tagged(context, vlans, spreading);
	if (outermost->ethertype == bpf_htons(ETH_P_IPV6))
		return receive6_tagged(context, vlans, spreading);
	if (!is_tag(outermost->ethertype))
		return XDP_PASS;
	vlans |= vlan_of(second);
	if (second->ethertype == bpf_htons(ETH_P_IP))
		return receive4_doubly_tagged(context, vlans, spreading);
	if (second->ethertype == bpf_htons(ETH_P_IPV6))
		return receive6_doubly_tagged(context, vlans, spreading);
	return XDP_PASS;
}

/* Handle any frame; the usual one, IPv4 without tags, takes no call. */
static __always_inline int receive_any(struct xdp_md *context, int spreading)
{
	struct ethhdr *ethernet = (void *)(long)context->data;

	if ((void *)(ethernet + 1) > (void *)(long)context->data_end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return receive(context, ETH_HLEN, ETH_P_IP, 0, spreading);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return receive6(context, 0, spreading);
	return is_tag(ethernet->h_proto) ? receive_any_tagged(context, spreading) : XDP_PASS;
}

SEC("xdp")
int gateway_xdp(struct xdp_md *context)
{
	int verdict = receive_any(context, 1);

	if (verdict & FOR_PROCESSOR)
		return bpf_redirect_map(&receive_cpus, verdict & 0xffff, XDP_PASS);
	return verdict;
}

/* On the processor that gateway_xdp handed a packet to. */
SEC("xdp/cpumap")
int gateway_cpu(struct xdp_md *context)
{
	return receive_any(context, 0);
}

#endif
