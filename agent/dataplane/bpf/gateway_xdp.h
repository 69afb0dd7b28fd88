/* The programs on the uplinks. */
#ifndef ISTHMUS_GATEWAY_XDP_H
#define ISTHMUS_GATEWAY_XDP_H

SEC("xdp")
int gateway_xdp(struct xdp_md *context)
{
	return XDP_PASS;
}

SEC("xdp/cpumap")
int gateway_cpu(struct xdp_md *context)
{
	return XDP_PASS;
}

#endif
