//! Usual lines, to build the automata's states with before the snapshot is taken: what is built then is there in every
//! call, and what is not must be built again in each.

/// Header fields as they come: names, addresses, dates, tokens, encoded words.
const FIELDS: [&str; 30] = [
    "Received: from mail.example.com (mail.example.com [192.0.2.25])\n\tby mx.example.org (wasmta) with ESMTPS id 4F0C2A1B\n\tfor <user@example.org>; Mon, 06 Jan 2025 10:11:12 +0100 (CET)",
    "Received: by 2002:a05:6a20:7d9:b0:1f5:8221:d1 with SMTP id n25csp3911771; Tue, 18 Feb 2025 23:45:59 -0800 (PST)",
    "Received: from [10.0.0.5] (unknown [198.51.100.7]) (Authenticated sender: user) by smtp.example.net (Postfix) with ESMTPSA id 9B8D7; Wed, 30 Apr 2025 04:20:31 +0000 (UTC)",
    "Return-Path: <bounce-12345_HTML-67890@mail.example.com>",
    "Delivered-To: user@example.org",
    "Authentication-Results: mx.example.org; dkim=pass header.d=example.com header.s=sel1 header.b=Xk3uAb; spf=pass smtp.mailfrom=example.com; dmarc=pass (p=REJECT sp=NONE) header.from=example.com",
    "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=sel1; t=1736154672;\n\tbh=g3zLYH4xKxcPrHOD18z9YfpQcnk/GaJedfustWU5uGs=;\n\th=From:To:Subject:Date:Message-ID:MIME-Version:Content-Type;\n\tb=VqEwHk0QxYf2ZJt7RzUa8cN1mPdG5sLoB6vTiWyXeK3hCjDrAu4lMgFn9pOS+/q==",
    "ARC-Seal: i=1; a=rsa-sha256; t=1736154672; cv=none; d=example.net; s=arc-20240605; b=kM2J/9ZbTq",
    "ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=arc-20240605; h=mime-version:subject:message-id:to:from:date",
    "Message-ID: <CAJ8dQm+3kVbT7YwZx=Lp0aGhN5sRfUeWcXiOy@mail.example.com>",
    "Message-Id: <20250106091112.4F0C2A1B@host.example.org>",
    "Date: Mon, 6 Jan 2025 10:11:12 +0100",
    "Date: Thu, 31 Jul 2025 17:08:45 -0400 (EDT)",
    "From: \"Smith, Jane\" <jane.smith@example.com>",
    "From: =?UTF-8?Q?J=C3=BCrgen_M=C3=BCller?= <juergen@example.de>",
    "To: user@example.org, \"Other User\" <other@example.net>,\n undisclosed-recipients:;",
    "Cc: team@lists.example.org",
    "Reply-To: Sales Team <sales@shop.example.com>",
    "Subject: Re: [list] Invoice 2025-0042 for your order: 50% off, free shipping & more!",
    "Subject: =?utf-8?B?SGVsbG8gV29ybGQsIHRoaXMgaXMgYSBsb25nZXIgc3ViamVjdA==?=\n =?iso-8859-1?Q?_with_two_words?=",
    "MIME-Version: 1.0",
    "Content-Type: multipart/alternative; boundary=\"----=_Part_12345_678901234.1736154672000\"",
    "Content-Type: text/plain; charset=UTF-8; format=flowed; delsp=yes",
    "Content-Type: application/pdf; name=\"document_2025-01.pdf\"",
    "Content-Transfer-Encoding: quoted-printable",
    "Content-Disposition: attachment; filename=\"report.docx\"; size=48213",
    "List-Unsubscribe: <https://example.com/u?id=a1b2c3d4>, <mailto:unsubscribe@example.com?subject=remove>",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.6.0",
    "X-Spam-Status: No, score=-2.1 required=5.0 tests=BAYES_00,DKIM_SIGNED,DKIM_VALID,SPF_PASS autolearn=ham version=4.0.0",
    "X-Mailer: Microsoft Outlook 16.0",
];

/// Body lines as they come.
const LINES: [&str; 12] = [
    "Dear customer, thank you for your order; it will be shipped within 2 to 3 working days.",
    "> On Mon, Jan 6, 2025 at 10:11 AM Jane Smith <jane@example.com> wrote:",
    "<html><head><meta http-equiv=3D\"Content-Type\" content=3D\"text/html; charset=3Dutf-8\"></head>",
    "<div style=\"font-family: Arial, sans-serif; font-size: 14px; color: #333333;\"><a href=\"https://www.example.com/p?a=1&amp;b=2\">Click here</a></div>",
    "<td align=3D\"center\" valign=3D\"top\" width=3D\"600\"><img src=3D\"cid:image001.png@01D\" height=3D\"1\">=",
    "JVBERi0xLjQKJcfsj6IKNSAwIG9iago8PC9MZW5ndGggNiAwIFIvRmlsdGVyIC9GbGF0ZURlY29k",
    "------=_Part_12345_678901234.1736154672000",
    "--000000000000a1b2c3d4e5f6--",
    "The quick brown fox jumps over the lazy dog. 0123456789 (Really?) [yes] {no} ~ @ # $ % ^ & * _ + | \\ ` '",
    "-- ",
    "M=C3=BCnchen, gr=C3=BC=C3=9Fe und so weiter =E2=80=93 best regards",
    "\tIndented text, tabs\tand   runs of spaces.",
];

/// Octets of made-up text.
const MADE_UP: usize = 24 * 1024;

/// Header fields.
pub fn headers() -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = FIELDS.iter().map(|field| field.as_bytes().to_vec()).collect();
    for (token, field) in made_up().chunks(64).zip(FIELDS.iter().cycle()) {
        let name = field.split(' ').next().unwrap_or_default();
        fields.push([name.as_bytes(), b" ", token].concat());
    }
    fields
}

/// Body lines.
pub fn bodies() -> Vec<Vec<u8>> {
    let made_up = made_up();
    LINES.iter().map(|line| line.as_bytes()).chain(made_up.chunks(76)).map(<[u8]>::to_vec).collect()
}

/// Letters, digits and signs without an order, but always the same ones.
fn made_up() -> Vec<u8> {
    const SIGNS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..MADE_UP).map(|_| SIGNS.get((next() >> 40) as usize % SIGNS.len()).copied().unwrap_or(b' ')).collect()
}
