// Runs at the edge for /, /try and /try/*, before the cache is looked up: S3 knows no index of a folder, and is asked for
// what it has. Synth puts the names of the files in.
var FILES = new Set([]);

function handler(event) {
    var request = event.request;
    if (request.uri === '/' || request.uri === '/try') {
        return { statusCode: 307, statusDescription: 'Temporary Redirect', headers: { location: { value: '/try/' } } };
    }
    if (request.uri === '/try/') {
        request.uri = '/try/index.html';
    }
    if (!FILES.has(request.uri.slice('/try/'.length))) {
        return notFound(request.uri);
    }
    return request;
}

function notFound(uri) {
    var error = { message: 'There is no ' + uri + '.', type: 'invalid_request_error', param: null, code: 'not_found' };
    return {
        statusCode: 404,
        statusDescription: 'Not Found',
        headers: { 'content-type': { value: 'application/json' } },
        body: { encoding: 'text', data: JSON.stringify({ error: error }) },
    };
}
