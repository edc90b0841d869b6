/** What zod has against a value that may be one of several things. Pure. */

/** An issue as the type provider hands it on; `errors` are what each alternative of a union has against the value. */
export interface UnionIssue {
  keyword: string;
  instancePath: string;
  message: string;
  params: { errors?: { code?: string; path?: PropertyKey[]; message?: string; expected?: string }[][] | undefined };
}

/**
 * The issue itself; or, of a union, the issues of the alternative that was
 * meant: the one whose form fits, so that what is wrong lies within it.
 */
export function meantIssues<One extends UnionIssue>(issue: One): One[] {
  if (issue.keyword !== "invalid_union") return [issue];
  const meant = issue.params.errors?.find((issues) =>
    issues.some(({ code, path = [] }) => path.length > 0 || code === "unrecognized_keys"),
  );
  return (meant ?? []).length === 0
    ? [issue]
    : (meant ?? []).flatMap(({ code = "", path = [], message = "", ...params }) =>
        meantIssues({
          ...issue,
          keyword: code,
          instancePath: [issue.instancePath, ...path].join("/"),
          message,
          params,
        }),
      );
}
